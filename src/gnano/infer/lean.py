"""A block of a model that only reads and writes texts: the same numbers in fewer operations.

    q, k, v ─▶ one matrix       gate, up ─▶ one matrix       queries and keys are turned at once

A step for one text is short, so that each call counts. Of a block's 7 products 4 are left.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.infer.sums import may_sum, sums
from gnano.model import GPT
from gnano.model.attention import attend
from gnano.model.blocks import Block, Head, Linear
from gnano.model.cache import LayerCache
from gnano.model.rope import Rope


class LeanBlock(nn.Module):
    """Computes what the block does that it takes the matrices of; without gradients or dropout."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, mlp = block.self_attn, block.mlp
        self.H, self.K = attention.H, attention.K
        self.input_layernorm = block.input_layernorm
        self.qkv = LeanLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = LeanLinear(attention.o_proj)
        self.post_attention_layernorm = block.post_attention_layernorm
        self.gate_up = LeanLinear(mlp.gate_proj, mlp.up_proj)
        self.down_proj = LeanLinear(mlp.down_proj)

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        heads_BTE = self.qkv(self.input_layernorm(x_BTD)).view(B, T, self.H + 2 * self.K, -1)
        turned, v_BKTE = torch.split(heads_BTE.transpose(1, 2), [self.H + self.K, self.K], dim=1)
        q_BHTE, k_BKTE = torch.split(rope(turned), [self.H, self.K], dim=1)
        if cache is not None:
            k_BKTE, v_BKTE = cache.append(k_BKTE, v_BKTE)
        y_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, mask=mask_B1TT)
        x_BTD = x_BTD + self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        gate, up = self.gate_up(self.post_attention_layernorm(x_BTD)).chunk(2, dim=-1)
        y_BTD: Tensor = x_BTD + self.down_proj(F.silu(gate) * up)
        return y_BTD


class LeanLinear(Linear):
    """The matrices of these, one below the other."""

    def __init__(self, *parts: Linear) -> None:
        inputs, rows = parts[0].weight.shape[1], [len(part.weight) for part in parts]
        with torch.device("meta"):
            super().__init__(inputs, sum(rows))
        weight = parts[0].weight if len(parts) == 1 else torch.cat([p.weight for p in parts])
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.shown = shown(parts[0]) if len(parts) == 1 else sum(rows)

    def forward(self, x: Tensor) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        if may_sum(x_NI, len(self.weight)):
            y_NO = sums(x_NI, self.weight).to(x.dtype)
        else:
            y_NO = F.linear(x_NI, self.weight.to(x.dtype))
        return y_NO.view(*x.shape[:-1], len(self.weight))[..., : self.shown]


def make_lean(model: GPT) -> GPT:
    """Put one in the place of each block, one after another: the model can then not be saved."""
    for number, block in enumerate(model.model.layers):
        assert isinstance(block, Block)
        model.model.layers[number] = LeanBlock(block)
    setattr(model, "lm_head", LeanLinear(model.lm_head))  # noqa: B010 no Head, which trains
    return model


def shown(linear: Linear) -> int:
    """Its outputs; of the head, without the padding, which is no part of the vocabulary."""
    if isinstance(linear, Head):
        return linear.vocab_size
    return linear.shown if isinstance(linear, LeanLinear) else len(linear.weight)
