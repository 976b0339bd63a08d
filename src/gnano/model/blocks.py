"""What is the transformer made of? Its modules, each a few lines of plain PyTorch.

    block    x + attention(norm x), then + feed-forward(norm x)
    decoder  embedding, blocks, a last norm
    head     the output layer

Weights are cast where they are used: an activation's dtype decides the precision of its product.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.model.attention import attend
from gnano.model.cache import LayerCache
from gnano.model.config import ModelConfig
from gnano.model.rope import Rope

INIT_STD = 0.02


class Linear(nn.Linear):
    """Biasless; computes in its input's dtype whatever the dtype of the weight."""

    def __init__(self, in_features: int, out_features: int, init_std: float = INIT_STD) -> None:
        self.init_std = init_std
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.init_std)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class LMHead(Linear):
    """The output layer, padded to whole tiles while running and exact in the state dict."""

    def __init__(self, config: ModelConfig) -> None:
        self.vocab_size = config.vocab_size
        super().__init__(config.n_embd, config.padded_vocab_size)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.normal_(self.weight[: self.vocab_size], std=self.init_std)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., : self.vocab_size]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"][: self.vocab_size]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and len(weight) == self.vocab_size:
            padding = (0, 0, 0, len(self.weight) - self.vocab_size)
            state_dict = {**state_dict, prefix + "weight": F.pad(weight, padding)}
        super()._load_from_state_dict(state_dict, prefix, *args)


class RMSNorm(nn.Module):
    """x / root-mean-square(x) × weight (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # fp32: in bf16 the mean of 1,792 squares loses the small channels
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return self.weight.to(x.dtype) * normed.to(x.dtype)


class Attention(nn.Module):
    """Causal, with n_head / n_kv_head query heads to each key/value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, E = config.n_embd, config.head_size
        self.H, self.K = config.n_head, config.n_kv_head
        self.dropout = config.dropout
        self.q_proj = Linear(D, self.H * E)
        self.k_proj = Linear(D, self.K * E)
        self.v_proj = Linear(D, self.K * E)
        self.o_proj = Linear(self.H * E, D, init_std=_residual_init_std(config))

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTE, k_BKTE, v_BKTE = self.project_qkv(x_BTD, rope)
        if cache is not None:
            k_BKTE, v_BKTE = cache.append(k_BKTE, v_BKTE)
        y_BHTE = self.attend(q_BHTE, k_BKTE, v_BKTE, mask_B1TT)
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        return y_BTD

    def project_qkv(self, x_BTD: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, H, T, E], keys and values [B, K, T, E], the first two rotated."""
        B, T, _ = x_BTD.shape
        q_BHTE = rope.rotate(self.q_proj(x_BTD).view(B, T, self.H, -1).transpose(1, 2))
        k_BKTE = rope.rotate(self.k_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2))
        return q_BHTE, k_BKTE, self.v_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2)

    def attend(
        self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, mask_B1TT: Tensor | None
    ) -> Tensor:
        """What each query sees, [B, H, T, E]."""
        dropout = self.dropout if self.training else 0.0
        return attend(q_BHTE, k_BKTE, v_BKTE, dropout, mask_B1TT)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate x) × up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.ffn_hidden)
        self.up_proj = Linear(config.n_embd, config.ffn_hidden)
        self.down_proj = Linear(
            config.ffn_hidden, config.n_embd, init_std=_residual_init_std(config)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.dropout(self.self_attn(normed_BTD, rope, cache, mask_B1TT))
        x_BTD = x_BTD + self.dropout(self.mlp(self.post_attention_layernorm(x_BTD)))
        return x_BTD


class Decoder(nn.Module):
    """Everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        nn.init.normal_(self.embed_tokens.weight, std=INIT_STD)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)


def _residual_init_std(config: ModelConfig) -> float:
    # every layer adds twice to the residual stream; this keeps its variance level at the start
    return INIT_STD / math.sqrt(2 * config.n_layer)
