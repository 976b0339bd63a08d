"""Linear layers for inference: fused projections, and faster matrix products on a CPU.

    q, k, v ─▶ one matrix       gate, up ─▶ one matrix       queries and keys rotated together

Fusion leaves 4 of a block's 7 products, since each call counts in a decoding step of one text.
The fastest CPU product depends on the number of rows:

    bf16, one row           PyTorch's product with a vector, close to memory bandwidth
    one row, compiled       `gemv`: a few sums alongside each other. A library product reads the
                            matrix at two thirds of the bandwidth (half in 8 bits), because it
                            works on one sum at a time; four distant rows keep four streams going
    several rows, or fp32   oneDNN with a matrix in its own layout; one row of bf16 is then
                            slower, so an engine repacks when several texts are first requested

Weights keep their values and precision, but only one copy, in a form that cannot be trained or
saved.
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
    """A linear layer whose weight is stored in another form than `Linear`'s."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.visible_features = count_visible_features(linear)

    @abstractmethod
    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ without padding."""
        y_NO = self.matmul(x.reshape(-1, self.in_features).contiguous())
        return y_NO.view(*x.shape[:-1], self.out_features)[..., : self.visible_features]


def replace_linears(model: GPT, layer_class: Callable[[Linear], FrozenLinear]) -> GPT:
    """Replace each linear layer of blocks and head in place, one after another."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, layer_class(layer))
    return model


class OneDnnLinear(FrozenLinear):
    """A linear layer with its weight in oneDNN's layout."""

    packed_weight: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self.register_buffer("packed_weight", packed_weight, persistent=False)

    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""
        # the compiler expects constant weights from the raw operator, which it also generates
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
    """Return whether oneDNN multiplies packed matrices of the dtype on this processor."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if dtype == torch.bfloat16:
        return available and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return available and dtype == torch.float32


def prepack_onednn(model: GPT) -> GPT:
    """Repack the matrices of blocks and head in place, if supported and not yet done."""
    if not isinstance(model.lm_head, Linear):
        return model
    weight = model.lm_head.weight
    if weight.device.type != "cpu" or not can_prepack(weight.dtype):
        return model
    return replace_linears(model, OneDnnLinear)


@contextmanager
def without_onednn_for_one_row(model: GPT) -> Iterator[None]:
    """Disable oneDNN in the block, for products of one row with unpacked bf16 matrices.

    It is disabled for the entire process, so other products are slower meanwhile, but correct.
    """
    head = model.lm_head
    is_unpacked = isinstance(head, Linear) and head.weight.dtype == torch.bfloat16
    if not is_unpacked or head.weight.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        yield
        return
    # `backends.mkldnn.flags` would take longer than a small product
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


GEMV_STREAMS = 4  # rows read at a time; eight are slower


def should_use_gemv(x_NI: Tensor, outputs: int) -> bool:
    """Return whether `gemv` is faster: one compiled CPU row, no more inputs than outputs."""
    N, inputs = x_NI.shape
    return (
        torch.compiler.is_compiling()
        and x_NI.device.type == "cpu"
        and N == 1
        and inputs <= outputs
        and outputs % GEMV_STREAMS == 0
    )


def gemv(x_1I: Tensor, w_OI: Tensor) -> Tensor:
    """Return x @ Wᵀ, [1, O], in fp32, as sums over `GEMV_STREAMS` parts of the matrix."""
    parts = w_OI.view(GEMV_STREAMS, -1, w_OI.shape[1]).float().unbind()
    return torch.cat([(part * x_1I.float()).sum(-1) for part in parts])[None]


class FusedAttention(Attention):
    """Attention with one matrix for queries, keys and values, without dropout."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.H, self.K, self.dropout = attention.H, attention.K, 0.0
        self.qkv_proj = FusedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = FusedLinear(attention.o_proj)

    def project_qkv(self, x_BTD: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values as `Attention` does."""
        B, T, _ = x_BTD.shape
        heads_BHTE = self.qkv_proj(x_BTD).view(B, T, self.H + 2 * self.K, -1).transpose(1, 2)
        rotated, v_BKTE = torch.split(heads_BHTE, [self.H + self.K, self.K], dim=1)
        q_BHTE, k_BKTE = torch.split(rope.rotate(rotated), [self.H, self.K], dim=1)
        return q_BHTE, k_BKTE, v_BKTE


class FusedFeedForward(FeedForward):
    """SwiGLU with one matrix for gate and up."""

    def __init__(self, mlp: FeedForward) -> None:
        nn.Module.__init__(self)
        self.gate_up_proj = FusedLinear(mlp.gate_proj, mlp.up_proj)
        self.down_proj = FusedLinear(mlp.down_proj)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return down(silu(gate x) × up x)."""
        gate, up = self.gate_up_proj(x_BTD).chunk(2, dim=-1)
        y_BTD: Tensor = self.down_proj(F.silu(gate) * up)
        return y_BTD


class FusedLinear(Linear):
    """The stacked matrices of several linear layers."""

    def __init__(self, *parts: Linear) -> None:
        inputs, rows = parts[0].weight.shape[1], [len(part.weight) for part in parts]
        with torch.device("meta"):
            super().__init__(inputs, sum(rows))
        weight = parts[0].weight if len(parts) == 1 else torch.cat([p.weight for p in parts])
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.visible_features = count_visible_features(parts[0]) if len(parts) == 1 else sum(rows)

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ without padding."""
        x_NI = x.reshape(-1, x.shape[-1])
        if should_use_gemv(x_NI, len(self.weight)):
            y_NO = gemv(x_NI, self.weight).to(x.dtype)
        else:
            y_NO = F.linear(x_NI, self.weight.to(x.dtype))
        return y_NO.view(*x.shape[:-1], len(self.weight))[..., : self.visible_features]


def fuse_projections(model: GPT) -> GPT:
    """Fuse the projections of each block in place; the model can no longer be trained or saved."""
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.self_attn = FusedAttention(block.self_attn)
        block.mlp = FusedFeedForward(block.mlp)
    setattr(model, "lm_head", FusedLinear(model.lm_head))  # noqa: B010 it is declared as LMHead
    return model.eval()


def count_visible_features(linear: Linear) -> int:
    """Return the number of a layer's outputs, without the padding of a head."""
    if isinstance(linear, LMHead):
        return linear.vocab_size
    return linear.visible_features if isinstance(linear, FusedLinear) else len(linear.weight)
