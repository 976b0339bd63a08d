"""How does a CPU multiply by a matrix fastest? One row as it lies, several in oneDNN's order.

    bf16, one row    PyTorch's own product with a vector, at nearly the pace of the memory
    several, fp32    oneDNN's, which gets sooner through a matrix that it has laid out itself

The numbers and their precision stay. What is laid out is so for good, and one row of bf16 is then
slower: an engine does it when several texts are first wanted side by side.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gnano.infer.fixed import FrozenLinear, replace_linears
from gnano.model.blocks import Linear
from gnano.model.gpt import GPT


class OneDnnLinear(FrozenLinear):
    packed_weight: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self.register_buffer("packed_weight", packed_weight, persistent=False)

    def matmul(self, x_NI: Tensor) -> Tensor:
        # the compiler takes the operator itself for one of its own making, with constant weights
        multiply = _packed_matmul_op if torch.compiler.is_compiling() else _packed_matmul
        y_NO: Tensor = multiply(x_NI, self.packed_weight)
        return y_NO


def _packed_matmul(x_NI: Tensor, packed_OI: Tensor) -> Tensor:
    y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, packed_OI, None, "none", [], "")
    return y_NO


_packed_matmul_op = torch.library.custom_op(
    "gnano::packed_product", _packed_matmul, mutates_args=()
)


@_packed_matmul_op.register_fake
def _(x_NI: Tensor, packed_OI: Tensor) -> Tensor:
    return x_NI.new_empty(len(x_NI), len(packed_OI))


def can_prepack(dtype: torch.dtype) -> bool:
    """Return whether this processor's oneDNN multiplies laid out matrices of the dtype."""
    known: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if dtype == torch.bfloat16:
        return known and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known and dtype == torch.float32


def prepack_onednn(model: GPT) -> GPT:
    """Lay out the matrices of blocks and head, in place, where that is known and not yet done."""
    if not isinstance(model.lm_head, Linear):
        return model
    weight = model.lm_head.weight
    if weight.device.type != "cpu" or not can_prepack(weight.dtype):
        return model
    return replace_linears(model, OneDnnLinear)


@contextmanager
def without_onednn_for_one_row(model: GPT) -> Iterator[None]:
    """While one row is computed: its products in bf16 without oneDNN, where they lie as they were.

    What else the process multiplies meanwhile goes without it too, which is slower, not wrong.
    """
    head = model.lm_head
    plain = isinstance(head, Linear) and head.weight.dtype == torch.bfloat16
    if not plain or head.weight.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        yield
        return
    # not `backends.mkldnn.flags`: with its other settings it takes longer than a small product
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)
