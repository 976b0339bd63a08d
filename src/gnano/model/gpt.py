"""The transformer: a Llama-style decoder in plain PyTorch.

    ids ─▶ embedding ─▶ [ + attention(norm) ─▶ + feed-forward(norm) ] × layers ─▶ norm ─▶ head

Modules carry the names that Hugging Face's `LlamaForCausalLM` gives its tensors, so the
state dict is the file on disk: no mapping, no second format.

Tensor names carry their shape, here and everywhere in this package:
B batch, T time, D width, H query heads, K key/value heads, E head size, F feed-forward
width, V vocabulary, N = B·T tokens.

Weights stay in the dtype they are given (fp32 in training) and are cast where they are
used: the activations' dtype, `compute_dtype`, decides the precision of the matrix products.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gnano.model.attention import attend, document_mask
from gnano.model.cache import KVCache, LayerCache
from gnano.model.config import ModelConfig
from gnano.model.head_loss import head_loss
from gnano.model.names import from_published, is_published
from gnano.model.rope import Rope, rope_table

INIT_STD = 0.02


class Linear(nn.Linear):
    """Biasless; computes in its input's dtype whatever the dtype of the weight."""

    def __init__(self, inputs: int, outputs: int, std: float = INIT_STD) -> None:
        self.std = std
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Head(Linear):
    """The output layer, padded to whole tiles while running and exact in the state dict."""

    def __init__(self, config: ModelConfig) -> None:
        self.vocab_size = config.vocab_size
        super().__init__(config.n_embd, config.padded_vocab_size)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.normal_(self.weight[: self.vocab_size], std=self.std)

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
        self.o_proj = Linear(self.H * E, D, std=_residual_std(config))

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTE = rope(self.q_proj(x_BTD).view(B, T, self.H, -1).transpose(1, 2))
        k_BKTE = rope(self.k_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2))
        v_BKTE = self.v_proj(x_BTD).view(B, T, self.K, -1).transpose(1, 2)
        if cache is not None:
            k_BKTE, v_BKTE = cache.append(k_BKTE, v_BKTE)
        dropout = self.dropout if self.training else 0.0
        y_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, dropout, mask_B1TT)
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        return y_BTD


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate x) × up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.ffn_hidden)
        self.up_proj = Linear(config.n_embd, config.ffn_hidden)
        self.down_proj = Linear(config.ffn_hidden, config.n_embd, std=_residual_std(config))

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


class GPT(nn.Module):
    """The language model: ids in, logits or loss out.

    The signature and its defaults are the published ones and give the reference model of
    1,050,002,688 parameters. `GPT.from_config(PRESETS["124m"])` builds the other shapes.
    """

    compute_dtype: torch.dtype | None = None  # of the activations; None: as the weights
    recompute: bool = False  # in backward, a block's activations from its input: less memory
    compiled: bool = False  # by `compile_blocks`

    def __init__(
        self,
        vocab_size: int = 50_257,
        n_embd: int = 1_792,
        n_layer: int = 24,
        n_head: int = 14,
        n_kv_head: int = 2,
        ffn_hidden: int = 5_376,
        block_size: int = 1_024,
        dropout: float = 0.0,
        *,
        rope_theta: float = 500_000.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.config = ModelConfig(
            vocab_size=vocab_size,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_kv_head=n_kv_head,
            ffn_hidden=ffn_hidden,
            block_size=block_size,
            dropout=dropout,
            rope_theta=rope_theta,
            norm_eps=norm_eps,
        )
        self.model = Decoder(self.config)
        self.lm_head = Head(self.config)

    @classmethod
    def from_config(cls, config: ModelConfig) -> "GPT":
        return cls(**asdict(config))

    def compile_blocks(self) -> None:
        """Compile the blocks and the head's loss, in place, for training; before FSDP or DDP.

        All blocks share one compilation, which the first step makes. Modules, parameters and
        their names stay; held-out text and generation run as before.
        """
        for block in self.model.layers:
            # its forward and not the module: what wraps the module (FSDP's hooks) stays outside
            block.forward = torch.compile(block.forward, fullgraph=True)
        self.compiled = True

    def num_parameters(self) -> int:
        """Parameters of the logical model: the head's padding rows are not counted."""
        padding = (self.config.padded_vocab_size - self.config.vocab_size) * self.config.n_embd
        return sum(p.numel() for p in self.parameters()) - padding

    def hidden(
        self,
        ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states [B, T, D]; with a cache, ids continue what it holds.

        With `segments_BT` (integers) a position attends within its own segment only: several
        documents in a row are then computed as if each were alone.

        Raises ValueError where the positions would pass the context (`block_size`), and for
        segments together with a cache, which does not know the segments of what it holds.
        """
        if cache is not None and segments_BT is not None:
            raise ValueError(
                "A KV cache holds one text a row: give segments_BT or cache, not both."
            )
        past = cache.length if cache else 0
        end = past + ids_BT.shape[1]
        if end > self.config.block_size:
            raise ValueError(
                f"{end:,} tokens do not fit the model's context of {self.config.block_size:,}."
            )
        table = rope_table(
            self.config.head_size, self.config.block_size, self.config.rope_theta, ids_BT.device
        )
        rope = Rope(*(part[past:end] for part in table))
        x_BTD = self.model.embed_tokens(ids_BT)
        x_BTD = x_BTD.to(self.compute_dtype or x_BTD.dtype)
        # positions run on from one segment to the next: RoPE makes attention depend on
        # distances alone, and those inside a segment are right wherever it starts
        mask_B1TT = None if segments_BT is None else document_mask(segments_BT)
        y_BTD: Tensor = self.model.norm(self._blocks(x_BTD, rope, cache, mask_B1TT))
        return y_BTD

    def _blocks(
        self, x_BTD: Tensor, rope: Rope, cache: KVCache | None, mask_B1TT: Tensor | None
    ) -> Tensor:
        learns = self.training and torch.is_grad_enabled() and cache is None
        # other shapes come and go where nothing is learnt, and each would be compiled anew
        eager = self.compiled and not learns
        with torch.compiler.set_stance("force_eager") if eager else nullcontext():
            for number, block in enumerate(self.model.layers):
                inputs = (x_BTD, rope, cache.layers[number] if cache else None, mask_B1TT)
                if learns and self.recompute:
                    # without dropout nothing is drawn, and no state needs to be kept for it
                    draws = self.config.dropout > 0
                    x_BTD = checkpoint(
                        block, *inputs, use_reentrant=False, preserve_rng_state=draws
                    )
                else:
                    x_BTD = block(*inputs)
        return x_BTD

    def forward(
        self,
        ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, V] in fp32; `cache` and `segments_BT` as in `hidden`."""
        logits_BTV: Tensor = self.lm_head(self.hidden(ids_BT, cache, segments_BT=segments_BT))
        return logits_BTV.float()

    def loss(
        self, ids_BT: Tensor, targets_BT: Tensor, *, segments_BT: Tensor | None = None
    ) -> Tensor:
        """Sum of the cross-entropy, in nats, over the targets that are not -100."""
        x_ND = self.hidden(ids_BT, segments_BT=segments_BT).flatten(0, 1)
        weight_VD, targets_N = self.lm_head.weight, targets_BT.flatten()
        return head_loss(x_ND, weight_VD, targets_N, self.config.vocab_size, self.compiled)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Takes Hugging Face's Llama names or the published checkpoint's (see `names`)."""
        if is_published(state_dict):
            state_dict = from_published(state_dict, self.config)
        return super().load_state_dict(state_dict, strict, assign)


def _residual_std(config: ModelConfig) -> float:
    # every layer adds twice to the residual stream; this keeps its variance level at the start
    return INIT_STD / math.sqrt(2 * config.n_layer)
