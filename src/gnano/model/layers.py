"""The modules of the transformer, in plain PyTorch: RoPE, attention, SwiGLU, blocks, decoder.

    block    x + attention(norm x), then + feed-forward(norm x)
    decoder  embedding, blocks, final norm
    head     output layer

Weights are cast where they are used: the dtype of the activations is that of each product.

Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864) are half-split, as in Hugging
Face's Llama: channels j and j + E/2 of a head form a pair, rotated by position × θ^(-2j/E), so that
a product of a query and a key depends only on their distance.

Attention is causal, and within one document or branch where a row holds several:

    one document             two documents, ids 0 0 0 1 1     a prefix and two branches, 0 0 1 1 2
    ×                        ×                                ×
    × ×                      × ×                              × ×
    × × ×                    × × ×                            × × ×
    × × × ×                        ×                          × × × ×
    × × × × ×                      × ×                        × ×     ×
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.config.model_config import ModelConfig
from gnano.model.cpu_attention import CPU_ATTENTION_MAX_LENGTH, cpu_attention
from gnano.model.kv_cache import LayerCache


class Rope(NamedTuple):
    """Cosines and sines of positions, to rotate queries and keys by."""

    cos_TE: Tensor  # [T, E/2], fp32; or [B, 1, T, E/2] for positions per row
    sin_TE: Tensor

    def select(self, positions: slice | Tensor) -> "Rope":
        """Return the rotations of some positions of a table: a slice, or [B, T]."""
        if isinstance(positions, slice):
            return Rope(self.cos_TE[positions], self.sin_TE[positions])
        return Rope(self.cos_TE[positions][:, None], self.sin_TE[positions][:, None])

    def rotate(self, x_BHTE: Tensor) -> Tensor:
        """Rotate each pair of channels by its position's angle."""
        first, second = x_BHTE.chunk(2, dim=-1)
        rotated = torch.cat(
            (
                first * self.cos_TE - second * self.sin_TE,
                second * self.cos_TE + first * self.sin_TE,
            ),
            dim=-1,
        )
        return rotated.to(x_BHTE.dtype)


# not a buffer of a module: `model.to(bfloat16)` would round the angles
@lru_cache(maxsize=8)
def rope_table(head_size: int, length: int, theta: float, device: torch.device) -> Rope:
    """Return the rotations of positions 0 … length-1."""
    # a cached inference-mode tensor could not be used in a later backward pass
    with torch.inference_mode(False):
        pairs = torch.arange(0, head_size, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / theta ** (pairs / head_size)
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return Rope(angles.cos(), angles.sin())


def attend(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Return causal softmax attention of the last T positions over all S keys.

    A `mask` [B, 1, T, S] replaces the causal one; True where a position attends to a key.
    """
    T, S = q_BHTE.shape[2], k_BKTE.shape[2]
    if (
        torch.compiler.is_compiling()
        and q_BHTE.device.type == "cpu"
        and q_BHTE.dtype == torch.bfloat16  # in fp32 it is no faster
        and not dropout
        and 1 < T == S <= CPU_ATTENTION_MAX_LENGTH
    ):
        return cpu_attention(q_BHTE, k_BKTE, v_BKTE, mask)
    group = q_BHTE.shape[1] // k_BKTE.shape[1]
    if T == 1 and S > 1 and not dropout:
        # the queries of a group attend to the same keys: as rows of one product they share a read
        q_BKGE = q_BHTE.reshape(*k_BKTE.shape[:2], group, -1)
        y_BKGE = F.scaled_dot_product_attention(q_BKGE, k_BKTE, v_BKTE, attn_mask=mask)
        return y_BKGE.flatten(1, 2)[:, :, None]
    if mask is not None:
        # the only fused CUDA kernel that takes a mask on every GPU takes no grouped heads, and
        # PyTorch's fallback stores all [B, H, T, T] scores, which are larger than these copies
        k_BKTE, v_BKTE = (x.repeat_interleave(group, dim=1) for x in (k_BKTE, v_BKTE))
    elif 1 < T < S:  # SDPA aligns its own causal mask to the first position
        mask = torch.ones(T, S, dtype=torch.bool, device=q_BHTE.device).tril(S - T)
    is_causal = mask is None
    if T == 1:  # not one expression: in a compiled function, T == 1 is no plain bool
        is_causal = False
    # enable_gqa: the kernels read each key/value head once per group, without a copy
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
    )


def ragged_causal_mask(positions_BT: Tensor, kv_len: int) -> Tensor:
    """Return the causal mask [B, 1, T, kv_len] of rows with different positions."""
    return (torch.arange(kv_len, device=positions_BT.device) <= positions_BT[..., None])[:, None]


class PrefixTree(NamedTuple):
    """The layout of rows that hold a common prefix and several continuations of it."""

    branch_ids_BT: Tensor  # 0 for the prefix, from 1 for the branches
    positions_BT: Tensor  # of each token in its own text, from 0


def prefix_tree_mask(branch_ids_BT: Tensor, past_len: int = 0) -> Tensor:
    """Return the mask [B, 1, T, past + T]: each position attends to its prefix and branch."""
    B, T = branch_ids_BT.shape
    key_B1T, query_BT1 = branch_ids_BT[:, None, :], branch_ids_BT[:, :, None]
    mask_BTT = ((key_B1T == 0) | (key_B1T == query_BT1)).tril()
    return torch.cat([mask_BTT.new_ones(B, T, past_len), mask_BTT], dim=-1)[:, None]


def document_mask(document_ids_BT: Tensor) -> Tensor:
    """Return the mask [B, 1, T, T] of causal attention within each document."""
    same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    return same_BTT.tril()[:, None]


INIT_STD = 0.02


class Linear(nn.Linear):
    """A linear layer without bias that computes in the dtype of its input."""

    def __init__(self, in_features: int, out_features: int, init_std: float = INIT_STD) -> None:
        self.init_std = init_std
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight from a normal distribution."""
        nn.init.normal_(self.weight, std=self.init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ in the dtype of x."""
        return F.linear(x, self.weight.to(x.dtype))


class LMHead(Linear):
    """The output layer; its weight is padded to full tiles, but not in the state dict."""

    def __init__(self, config: ModelConfig) -> None:
        self.vocab_size = config.vocab_size
        super().__init__(config.n_embd, config.padded_vocab_size)

    def reset_parameters(self) -> None:
        """Draw the weight from a normal distribution."""
        nn.init.zeros_(self.weight)
        nn.init.normal_(self.weight[: self.vocab_size], std=self.init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [..., V] without padding."""
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
    """RMS normalization: x / root-mean-square(x) × weight (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized x in its dtype."""
        # fp32: in bf16 the mean of 1,792 squares loses the small channels
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return self.weight.to(x.dtype) * normed.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention: n_head / n_kv_head query heads share a key/value head."""

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
        """Return the attention output [B, T, D]; a cache is extended."""
        B, T, _ = x_BTD.shape
        q_BHTE, k_BKTE, v_BKTE = self.project_qkv(x_BTD, rope)
        if cache is not None:
            k_BKTE, v_BKTE = cache.append(k_BKTE, v_BKTE)
        dropout = self.dropout if self.training else 0.0
        y_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, dropout, mask_B1TT)
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        return y_BTD

    def project_qkv(self, x_BTD: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, H, T, E], keys and values [B, K, T, E], the first two rotated."""
        B, T, _ = x_BTD.shape
        q_BHTE = rope.rotate(self.q_proj(x_BTD).view(B, T, self.H, -1).transpose(1, 2))
        k_BKTE = rope.rotate(self.k_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2))
        return q_BHTE, k_BKTE, self.v_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """The SwiGLU feed-forward (Shazeer 2020): down(silu(gate x) × up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.ffn_hidden)
        self.up_proj = Linear(config.n_embd, config.ffn_hidden)
        self.down_proj = Linear(
            config.ffn_hidden, config.n_embd, init_std=_residual_init_std(config)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the feed-forward output [B, T, D]."""
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
        """Return the residual stream [B, T, D] after this layer."""
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.dropout(self.self_attn(normed_BTD, rope, cache, mask_B1TT))
        x_BTD = x_BTD + self.dropout(self.mlp(self.post_attention_layernorm(x_BTD)))
        return x_BTD


class Decoder(nn.Module):
    """Embedding, blocks and final norm; `GPT.hidden_states` runs them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        nn.init.normal_(self.embed_tokens.weight, std=INIT_STD)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)


def _residual_init_std(config: ModelConfig) -> float:
    # each layer adds twice to the residual stream; this keeps its initial variance constant
    return INIT_STD / math.sqrt(2 * config.n_layer)
