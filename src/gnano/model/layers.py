"""Where is a token? Rotary positions, half-split as Hugging Face's Llama has them.

Channel j of a head and channel j + E/2 form a pair, which turns by position × θ^(-2j/E).
A dot product of two turned vectors then depends on their distance alone
(Su et al. 2021, https://arxiv.org/abs/2104.09864).

Who sees whom? Softmax attention: causal, and within one document where rows hold several.

one document a row       two, as segments 0 0 0 1 1       a beginning and two branches, 0 0 1 1 2
×                        ×                                ×
× ×                      × ×                              × ×
× × ×                    × × ×                            × × ×
× × × ×                        ×                          × × × ×
× × × × ×                      × ×                        × ×     ×

What is the transformer made of? Its modules, each a few lines of plain PyTorch.

    block    x + attention(norm x), then + feed-forward(norm x)
    decoder  embedding, blocks, a last norm
    head     the output layer

Weights are cast where they are used: an activation's dtype decides the precision of its product.
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

    cos_TE: Tensor  # [T, E/2], fp32; or [B, 1, T, E/2] where each row has positions of its own
    sin_TE: Tensor

    def select(self, positions: slice | Tensor) -> "Rope":
        """Return the rotations of a table's positions: a slice, or [B, T] of each row."""
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


# not a module's buffer: `model.to(bfloat16)` would round the angles with the weights
@lru_cache(maxsize=8)
def rope_table(head_size: int, length: int, theta: float, device: torch.device) -> Rope:
    """Return the rotations of positions 0 … length-1."""
    # an inference-mode tensor kept here could not be saved for a later backward pass
    with torch.inference_mode(False):
        pairs = torch.arange(0, head_size, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / theta ** (pairs / head_size)
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return Rope(angles.cos(), angles.sin())


def attend(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Softmax attention of the last T positions over all so far; each sees up to itself.

    A `mask` [B, 1, T, so far] says instead what each position sees (True: this one).
    """
    T, so_far = q_BHTE.shape[2], k_BKTE.shape[2]
    if (
        torch.compiler.is_compiling()
        and q_BHTE.device.type == "cpu"
        and q_BHTE.dtype == torch.bfloat16  # in fp32 it is no faster
        and not dropout
        and 1 < T == so_far <= CPU_ATTENTION_MAX_LENGTH
    ):
        return cpu_attention(q_BHTE, k_BKTE, v_BKTE, mask)
    group = q_BHTE.shape[1] // k_BKTE.shape[1]
    if T == 1 and so_far > 1 and not dropout:
        # a group's queries see the same: as rows of one product its keys are read once, uncopied
        q_BKGE = q_BHTE.reshape(*k_BKTE.shape[:2], group, -1)
        y_BKGE = F.scaled_dot_product_attention(q_BKGE, k_BKTE, v_BKTE, attn_mask=mask)
        return y_BKGE.flatten(1, 2)[:, :, None]
    if mask is not None:
        # the one fused CUDA kernel that takes a mask on every GPU takes no grouped heads, and
        # what PyTorch falls back to writes out all [B, H, T, T] scores: the copies are smaller
        k_BKTE, v_BKTE = (x.repeat_interleave(group, dim=1) for x in (k_BKTE, v_BKTE))
    elif 1 < T < so_far:  # SDPA's own causal mask is aligned to the first position
        mask = torch.ones(T, so_far, dtype=torch.bool, device=q_BHTE.device).tril(so_far - T)
    causal = mask is None
    if T == 1:  # asked as a question of its own: a compiled size is no plain bool
        causal = False
    # enable_gqa: the kernels read each key/value head once for its group, without a copy
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
    )


def ragged_causal_mask(positions_BT: Tensor, kv_len: int) -> Tensor:
    """What the new positions of rows of different lengths see, [B, 1, T, end]: up to themselves."""
    return (torch.arange(kv_len, device=positions_BT.device) <= positions_BT[..., None])[:, None]


class PrefixTree(NamedTuple):
    """What rows consist of that hold several continuations of one beginning."""

    branch_ids_BT: Tensor  # of the branch that each position is in; 0: of the beginning
    positions_BT: Tensor  # its place in its own text, from 0


def prefix_tree_mask(branch_ids_BT: Tensor, past_len: int = 0) -> Tensor:
    """What each position sees, [B, 1, T, past + T]: its row's beginning and its own branch."""
    B, T = branch_ids_BT.shape
    one_B1T, each_BT1 = branch_ids_BT[:, None, :], branch_ids_BT[:, :, None]
    seen_BTT = ((one_B1T == 0) | (one_B1T == each_BT1)).tril()
    return torch.cat([seen_BTT.new_ones(B, T, past_len), seen_BTT], dim=-1)[:, None]


def document_mask(document_ids_BT: Tensor) -> Tensor:
    """What each position sees, [B, 1, T, T]: itself and what came before in its segment."""
    same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    return same_BTT.tril()[:, None]


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
