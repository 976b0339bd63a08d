"""The precision of a run, chosen by a measurement on its device.

bf16 products are 3 to 5 times as fast as fp32 on a CPU with AVX512-BF16 or AMX, and several times
slower on one without. Master weights are fp32 either way.
"""

import time
from typing import Literal

import torch

from gnano.model.fp8 import fp8_unsupported_reason

MIN_BF16_SPEEDUP = 1.5  # bf16 rounds more, so it has to be clearly faster
# of the activations; fp8 is the precision of the large matrix products between them
COMPUTE_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}


def choose_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Return bf16 where the device supports it natively, else fp16 on a GPU and fp32 on a CPU.

    On Apple's GPUs it is fp32: the others were never measured there.
    """
    if device.type == "mps":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    speedup = _time_matmul(torch.float32) / _time_matmul(torch.bfloat16)
    return "bf16" if speedup >= MIN_BF16_SPEEDUP else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError where the device does not support the precision."""
    if precision == "fp8" and (reason := fp8_unsupported_reason(device)):
        raise ValueError(f'{reason} Choose train.precision = "bf16".')


def _time_matmul(dtype: torch.dtype, size: int = 768) -> float:
    """Return the seconds of the fastest of 5 matrix products, which take about 50 ms in all."""
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
