"""The precision of a run, by what is fast on its device."""

import time
from typing import Literal

import torch

from gnano.model.fp8 import fp8_unsupported_reason

MIN_BF16_SPEEDUP = 1.5  # bf16 rounds more, so it has to be clearly faster
MeasuredPrecision = Literal["fp32", "bf16", "fp16"]


# of the activations; fp8 is that of the large matrix products between them
COMPUTE_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}


def choose_precision(device: torch.device) -> MeasuredPrecision:
    """`bf16` where the device multiplies bf16 natively, else `fp16` on a GPU, `fp32` on a CPU.

    On Apple's GPUs `fp32`: which of the others is right and faster there was never measured.
    """
    if device.type == "mps":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    speedup = _time_matmul(torch.float32) / _time_matmul(torch.bfloat16)
    return "bf16" if speedup >= MIN_BF16_SPEEDUP else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Raises ValueError where this device cannot compute in it."""
    if precision == "fp8" and (reason := fp8_unsupported_reason(device)):
        raise ValueError(f'{reason} Choose train.precision = "bf16".')


def _time_matmul(dtype: torch.dtype, size: int = 768) -> float:
    """The quickest of a few products of square matrices; about 50 ms in all."""
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
