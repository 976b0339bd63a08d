"""What takes a matrix's place in a model that only reads and writes texts? One laid out for that.

It computes what `Linear` does, or nearly, and keeps no second copy: the model can then not be
trained or saved.

How does a CPU multiply by a matrix fastest? One row as it lies, several in oneDNN's order.

    bf16, one row    PyTorch's own product with a vector, at nearly the pace of the memory
    several, fp32    oneDNN's, which gets sooner through a matrix that it has laid out itself

The numbers and their precision stay. What is laid out is so for good, and one row of bf16 is then
slower: an engine does it when several texts are first wanted side by side.

One row times a matrix as the compiler does it best on a CPU: as sums, a few side by side.

A product's call reads the matrix at two thirds of the memory's pace, or half of it where the matrix
is in 8 bits: it has one sum in hand at a time. Four rows of the matrix, far from each other, keep
four streams of reading going.

Fused projections for inference: the same numbers in fewer operations.

    q, k, v ─▶ one matrix       gate, up ─▶ one matrix       queries and keys are rotated together

A decoding step for one text is short, so that each call counts. Of a block's 7 products 4 are left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.model.layers import Attention, Block, FeedForward, Linear, LMHead, Rope
from gnano.model.transformer import GPT


class FrozenLinear(nn.Module, ABC):
    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.visible_features = count_visible_features(linear)

    @abstractmethod
    def matmul(self, x_NI: Tensor) -> Tensor:
        """x @ Wᵀ, [N, O]."""

    def forward(self, x: Tensor) -> Tensor:
        y_NO = self.matmul(x.reshape(-1, self.in_features).contiguous())
        return y_NO.view(*x.shape[:-1], self.out_features)[..., : self.visible_features]


def replace_linears(model: GPT, layer_class: Callable[[Linear], FrozenLinear]) -> GPT:
    """Put one in the place of each matrix of blocks and head, one after another."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, layer_class(layer))
    return model


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


class FusedAttention(Attention):
    """Attention whose queries, keys and values come from one matrix; without dropout."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.H, self.K, self.dropout = attention.H, attention.K, 0.0
        self.qkv_proj = FusedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = FusedLinear(attention.o_proj)

    def project_qkv(self, x_BTD: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = x_BTD.shape
        heads_BHTE = self.qkv_proj(x_BTD).view(B, T, self.H + 2 * self.K, -1).transpose(1, 2)
        rotated, v_BKTE = torch.split(heads_BHTE, [self.H + self.K, self.K], dim=1)
        q_BHTE, k_BKTE = torch.split(rope.rotate(rotated), [self.H, self.K], dim=1)
        return q_BHTE, k_BKTE, v_BKTE


class FusedFeedForward(FeedForward):
    """SwiGLU whose gate and up come from one matrix."""

    def __init__(self, mlp: FeedForward) -> None:
        nn.Module.__init__(self)
        self.gate_up_proj = FusedLinear(mlp.gate_proj, mlp.up_proj)
        self.down_proj = FusedLinear(mlp.down_proj)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x_BTD).chunk(2, dim=-1)
        y_BTD: Tensor = self.down_proj(F.silu(gate) * up)
        return y_BTD


class FusedLinear(Linear):
    """The matrices of several linear layers, one below the other."""

    def __init__(self, *parts: Linear) -> None:
        inputs, rows = parts[0].weight.shape[1], [len(part.weight) for part in parts]
        with torch.device("meta"):
            super().__init__(inputs, sum(rows))
        weight = parts[0].weight if len(parts) == 1 else torch.cat([p.weight for p in parts])
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.visible_features = count_visible_features(parts[0]) if len(parts) == 1 else sum(rows)

    def forward(self, x: Tensor) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        if should_use_gemv(x_NI, len(self.weight)):
            y_NO = gemv(x_NI, self.weight).to(x.dtype)
        else:
            y_NO = F.linear(x_NI, self.weight.to(x.dtype))
        return y_NO.view(*x.shape[:-1], len(self.weight))[..., : self.visible_features]


def fuse_projections(model: GPT) -> GPT:
    """Fuse the matrices of each block, one after another; the model can then not be saved."""
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.self_attn = FusedAttention(block.self_attn)
        block.mlp = FusedFeedForward(block.mlp)
    setattr(model, "lm_head", FusedLinear(model.lm_head))  # noqa: B010 no Head, which trains
    return model.eval()


def count_visible_features(linear: Linear) -> int:
    """Return a layer's outputs; of the head, without the padding, which is no vocabulary."""
    if isinstance(linear, LMHead):
        return linear.vocab_size
    return linear.visible_features if isinstance(linear, FusedLinear) else len(linear.weight)
