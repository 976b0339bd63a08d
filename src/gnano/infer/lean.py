"""Fused projections for inference: the same numbers in fewer operations.

    q, k, v ─▶ one matrix       gate, up ─▶ one matrix       queries and keys are rotated together

A decoding step for one text is short, so that each call counts. Of a block's 7 products 4 are left.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.infer.sums import gemv, should_use_gemv
from gnano.model.blocks import Attention, Block, FeedForward, Linear, LMHead
from gnano.model.gpt import GPT
from gnano.model.rope import Rope


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
