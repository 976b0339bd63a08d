"""How does a CPU multiply by a matrix fastest? In the order of its own product, laid out before.

oneDNN, which multiplies for PyTorch on a CPU, takes a matrix as it lies; one that it has laid out
itself it gets through sooner, for one row and for many. The numbers and their precision stay.
"""

import torch
from torch import Tensor

from gnano.infer.fixed import FixedLinear, fix
from gnano.model import GPT
from gnano.model.blocks import Linear


class PackedLinear(FixedLinear):
    packed: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self.register_buffer("packed", packed, persistent=False)

    def product(self, x_NI: Tensor) -> Tensor:
        y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, self.packed, None, "none", [], "")
        return y_NO


def pack(model: GPT) -> GPT:
    """Lay out the matrices of blocks and head, in place, where that is known."""
    weight = model.lm_head.weight
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    bf16 = known and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    can = {torch.float32: known, torch.bfloat16: bf16}
    if weight.device.type != "cpu" or not can.get(weight.dtype):
        return model
    return fix(model, PackedLinear)
