"""How does a CPU read a matrix fastest? In the order of its own product, laid out beforehand.

oneDNN, which multiplies for PyTorch on a CPU, takes a matrix as it lies and is then held up by
where its parts lie; given one that it has laid out itself it reads near the memory's speed, for one
row and for many. The numbers and their precision stay the same.
"""

import torch
from torch import Tensor, nn

from gnano.model import GPT
from gnano.model.blocks import Head, Linear


class PackedLinear(nn.Module):
    """What `Linear` computes; made from one, whose weight it does not keep."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.inputs, self.dtype = weight.shape[1], weight.dtype
        self.bytes = weight.numel() * weight.element_size()
        # of the head, whose padding is no part of the vocabulary
        self.shown = linear.vocab_size if isinstance(linear, Head) else len(weight)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.packed, None, "none", [], ""
        )
        return y[..., : self.shown]


def pack(model: GPT) -> GPT:
    """Lay out the matrices of blocks and head, in place, one after another, where that is known.

    The model is then for reading and writing texts: it can't be trained, saved or moved.
    """
    weight = model.lm_head.weight
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    bf16 = known and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    can = {torch.float32: known, torch.bfloat16: bf16}
    if weight.device.type != "cpu" or not can.get(weight.dtype):
        return model
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, PackedLinear(layer))
    return model
