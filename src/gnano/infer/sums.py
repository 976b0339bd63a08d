"""One row times a matrix as the compiler does it best on a CPU: as sums, a few side by side.

A product's call reads the matrix at two thirds of the memory's pace, or half of it where the matrix
is in 8 bits: it has one sum in hand at a time. Four rows of the matrix, far from each other, keep
four streams of reading going.
"""

import torch
from torch import Tensor

GEMV_STREAMS = 4  # sums; with eight the streams get in each other's way


def should_use_gemv(x_NI: Tensor, outputs: int) -> bool:
    """Is this a moment for `sums`? Of longer rows than there are sums, a product reads faster."""
    N, inputs = x_NI.shape
    return (
        torch.compiler.is_compiling()
        and x_NI.device.type == "cpu"
        and N == 1
        and inputs <= outputs
        and outputs % GEMV_STREAMS == 0
    )


def gemv(x_1I: Tensor, w_OI: Tensor) -> Tensor:
    """x @ Wᵀ, [1, O], in fp32."""
    parts = w_OI.view(GEMV_STREAMS, -1, w_OI.shape[1]).float().unbind()
    return torch.cat([(part * x_1I.float()).sum(-1) for part in parts])[None]
