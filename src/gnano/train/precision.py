"""Which precision is fastest here? Measured, because a processor's name does not tell.

bf16 products are 3 to 5 times as fast as fp32 on a CPU with AVX512-BF16 or AMX, and
several times slower on one without. Master weights stay fp32 either way.
"""

import time
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WORTH = 1.5  # bf16 rounds more, so it has to be clearly faster


def choose_precision(device: torch.device) -> Precision:
    """`bf16` where the device multiplies bf16 natively, else `fp32`."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    speedup = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    return "bf16" if speedup >= WORTH else "fp32"


def _product_seconds(dtype: torch.dtype, size: int = 768) -> float:
    """The quickest of a few products of square matrices; about 50 ms in all."""
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
