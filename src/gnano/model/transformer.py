"""The transformer: a Llama-style decoder in plain PyTorch.

    GPT      ids ─▶ embedding ─▶ blocks ─▶ norm ─▶ head
    block    x + attention(norm x), then + feed-forward(norm x)

Modules have the names that Hugging Face's `LlamaForCausalLM` gives its tensors, so the state dict
is the file on disk.

Tensor names carry their shape, here and in the complete package:
B batch, T time, D width, H query heads, K key/value heads, E head size, F feed-forward width,
V vocabulary, N = B·T tokens.

Weights keep the dtype they are given (fp32 in training) and are cast where they are used:
`compute_dtype`, the dtype of the activations, decides the precision of the matrix products.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gnano.config.model_config import ModelConfig
from gnano.model.attention import KVCache, LayerCache, PrefixTree, attend
from gnano.model.fused_cross_entropy import LossFn
from gnano.model.linear import INIT_STD, Linear, LMHead, TiedHead, apply_together
from gnano.model.rope import Rope, rope_table
from gnano.model.tensor_names import convert_from_published


class RMSNorm(nn.RMSNorm):
    """RMS normalization: x / root-mean-square(x) × weight (Zhang & Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized x in its dtype."""
        # fp32: in bf16 the mean of 1,792 squares loses the small channels
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        if self.weight.dtype == x.dtype:  # rounded as transformers does
            return self.weight * normed.to(x.dtype)
        # in training the gain is fp32: so is its gradient, a sum over all tokens
        return (self.weight * normed).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention: n_head / n_kv_head query heads share a key/value head."""

    def __init__(self, config: ModelConfig, residual_std: float) -> None:
        super().__init__()
        D, E = config.n_embd, config.head_size
        self.H, self.K, self.E = config.n_head, config.n_kv_head, E
        self.dropout = config.dropout
        self.attend = attend  # replaced where the model is exported
        self.qkv_proj: nn.Module | None = None  # the projections as one, for inference
        self.q_proj = Linear(D, self.H * E, bias=config.has_qkv_bias)
        self.k_proj = Linear(D, self.K * E, bias=config.has_qkv_bias)
        self.v_proj = Linear(D, self.K * E, bias=config.has_qkv_bias)
        self.o_proj = Linear(self.H * E, D, residual_std, bias=config.attention_bias)
        self.has_qk_norm = config.has_qk_norm
        if self.has_qk_norm:
            self.q_norm = RMSNorm(E, config.norm_eps)
            self.k_norm = RMSNorm(E, config.norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Return the attention output [B, T, D]; a cache is extended."""
        B, T, _ = x_BTD.shape
        if self.qkv_proj is None:
            projected = apply_together(x_BTD, self.q_proj, self.k_proj, self.v_proj)
            q_BTHE, k_BTKE, v_BTKE = (x.view(B, T, -1, self.E) for x in projected)
            if self.has_qk_norm:
                q_BTHE, k_BTKE = self.q_norm(q_BTHE), self.k_norm(k_BTKE)
            q_BTHE, k_BTKE = rope.rotate(q_BTHE), rope.rotate(k_BTKE)
            v_BTKE = v_BTKE.contiguous()  # not a view that keeps all of the product in memory
        else:
            heads_BTHE = self.qkv_proj(x_BTD).view(B, T, self.H + 2 * self.K, -1)
            turned_BTHE, v_BTKE = torch.split(heads_BTHE, [self.H + self.K, self.K], dim=2)
            if self.has_qk_norm:
                q_BTHE, k_BTKE = torch.split(turned_BTHE, [self.H, self.K], dim=2)
                turned_BTHE = torch.cat([self.q_norm(q_BTHE), self.k_norm(k_BTKE)], dim=2)
            q_BTHE, k_BTKE = torch.split(rope.rotate(turned_BTHE), [self.H, self.K], dim=2)
        # only the strides change: the kernels read heads in place, and return them so
        q_BHTE, k_BKTE, v_BKTE = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
        if cache is not None:
            k_BKTE, v_BKTE = cache.append(k_BKTE, v_BKTE)
        dropout = self.dropout if self.training else 0.0
        y_BHTE = self.attend(q_BHTE, k_BKTE, v_BKTE, dropout, mask_B1TT)
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        return y_BTD


class FeedForward(nn.Module):
    """The SwiGLU feed-forward (Shazeer 2020): down(silu(gate x) × up x)."""

    def __init__(self, config: ModelConfig, residual_std: float) -> None:
        super().__init__()
        self.gate_up_proj: nn.Module | None = None  # both as one, for inference
        D, hidden, bias = config.n_embd, config.ffn_hidden, config.mlp_bias
        self.gate_proj = Linear(D, hidden, bias=bias)
        self.up_proj = Linear(D, hidden, bias=bias)
        self.down_proj = Linear(hidden, D, residual_std, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the feed-forward output [B, T, D]."""
        if self.gate_up_proj is None:
            gate_BTF, up_BTF = apply_together(x_BTD, self.gate_proj, self.up_proj)
        else:
            gate_BTF, up_BTF = self.gate_up_proj(x_BTD).chunk(2, dim=-1)
        y_BTD: Tensor = self.down_proj(F.silu(gate_BTF) * up_BTF)
        return y_BTD


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # each layer adds twice to the residual stream; this keeps its initial variance constant
        residual_std = INIT_STD / math.sqrt(2 * config.n_layer)
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config, residual_std)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = FeedForward(config, residual_std)
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


class GPT(nn.Module):
    """The language model: ids in, logits or loss out.

    Signature and defaults are those of the published model of 1,050,002,688 parameters.
    """

    compute_dtype: torch.dtype | None = None  # of the activations; None: that of the weights
    activation_checkpointing: bool = False  # recompute activations in backward, to save memory
    uses_rng: bool = False  # blocks draw random numbers beyond dropout, as adapters may
    is_compiled: bool = False  # by `compile_blocks`

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
        **others: Any,  # the other fields of `ModelConfig`
    ) -> None:
        super().__init__()
        self.config = config = ModelConfig(
            vocab_size=vocab_size,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_kv_head=n_kv_head,
            ffn_hidden=ffn_hidden,
            block_size=block_size,
            dropout=dropout,
            **others,
        )
        # where the GPU has it, PyTorch prefers cuDNN's attention, which plans for half a second for
        # each new shape, and with masks or few key/value heads may return wrong numbers (PyTorch's
        # issues 193893 and 196678); `attend` uses it where it is fast and right
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.model = Decoder(config)
        self.lm_head: LMHead | TiedHead = (
            TiedHead(self.model.embed_tokens)
            if config.tie_embeddings
            else LMHead(n_embd, vocab_size, padding=config.padded_vocab_size - vocab_size)
        )

    @classmethod
    def from_config(cls, config: ModelConfig) -> "GPT":
        """Build a model of this shape with random weights."""
        return cls(**vars(config))

    def compile_blocks(self) -> None:
        """Compile blocks and the head's loss in place, for training only; before FSDP or DDP.

        All blocks share one compilation, done in the first step. Names do not change.
        """
        # DDP would cut each block into graphs of 25 MB of parameters, to exchange gradients early.
        # One graph for each block allows that too, and the compiler can fuse all of the block
        torch._dynamo.config.optimize_ddp = False
        for block in self.model.layers:
            # the forward and not the module, so that FSDP's hooks stay outside
            block.forward = torch.compile(block.forward, fullgraph=True)
        self.is_compiled = True

    def num_parameters(self) -> int:
        """Return the number of parameters, without the head's padding."""
        padding = self.lm_head.weight.shape[0] - self.config.vocab_size
        return sum(p.numel() for p in self.parameters()) - padding * self.config.n_embd

    def hidden_states(
        self,
        ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        document_ids_BT: Tensor | None = None,
        prefix_tree: PrefixTree | None = None,
    ) -> Tensor:
        """Return the final hidden states [B, T, D]; with a cache, ids continue its contents.

        With `document_ids_BT` (integers) a position attends only within its own document; a cache
        does not store these. With `prefix_tree` a row holds several continuations of one prefix
        (or of a cache with rows of equal length), each computed as if it were the only one.

        Raises ValueError for positions beyond the context (`block_size`); the caller checks those
        of a prefix tree.
        """
        if cache is not None and document_ids_BT is not None:
            raise ValueError(
                "A KV cache holds one document per row; pass document_ids_BT or cache, not both."
            )
        past = int(cache.lengths.max()) if cache else 0
        end = past + ids_BT.shape[1]
        if end > self.config.block_size and prefix_tree is None:
            raise ValueError(
                f"{end:,} tokens do not fit in the model's context of {self.config.block_size:,}."
            )
        # True where a position attends to a key; see `gnano.model.attention`
        mask_B1TT: Tensor | None = None
        if document_ids_BT is not None:
            # positions continue from one document to the next: with RoPE, attention depends only
            # on distances, and those within a document are right wherever it starts
            same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
            mask_B1TT = same_BTT.tril()[:, None]
        positions_BT = cache.advance(ids_BT.shape[1]) if cache else None
        if cache is not None and positions_BT is not None:
            keys_T = torch.arange(cache.layers[0].end, device=ids_BT.device)
            mask_B1TT = (keys_T <= positions_BT[..., None])[:, None]
        if prefix_tree is not None:
            assert positions_BT is None, "a prefix tree needs cache rows of equal length"
            branch_ids_BT, positions_BT = prefix_tree
            key_B1T, query_BT1 = branch_ids_BT[:, None, :], branch_ids_BT[:, :, None]
            mask_BTT = ((key_B1T == 0) | (key_B1T == query_BT1)).tril()
            mask_B1TT = F.pad(mask_BTT, (past, 0), value=True)[:, None]
        table = rope_table(self.config, ids_BT.device)
        positions = slice(past, end) if positions_BT is None else positions_BT
        rope = Rope(table.cos_TE[positions], table.sin_TE[positions])
        x_BTD = self.model.embed_tokens(ids_BT)
        x_BTD = x_BTD.to(self.compute_dtype or x_BTD.dtype)
        trains = self.training and torch.is_grad_enabled() and cache is None
        # outside training shapes vary, and each would be compiled again
        eager = self.is_compiled and not trains
        with torch.compiler.set_stance("force_eager") if eager else nullcontext():
            for number, block in enumerate(self.model.layers):
                inputs = (x_BTD, rope, cache.layers[number] if cache else None, mask_B1TT)
                if trains and self.activation_checkpointing:
                    # the state of the generator is saved only if random numbers are drawn
                    rng = self.uses_rng or self.config.dropout > 0
                    x_BTD = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=rng)
                else:
                    x_BTD = block(*inputs)
        y_BTD: Tensor = self.model.norm(x_BTD)
        return y_BTD

    def forward(
        self, ids_BT: Tensor, cache: KVCache | None = None, *, document_ids_BT: Tensor | None = None
    ) -> Tensor:
        """Return logits [B, T, V] in fp32; arguments as in `hidden_states`."""
        return self.logits(self.hidden_states(ids_BT, cache, document_ids_BT=document_ids_BT))

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [..., V] in fp32 of final hidden states [..., D]."""
        logits: Tensor = self.lm_head(x)
        return logits.float()

    def run_unsharded(self, function: Callable[["GPT"], Tensor]) -> Tensor:
        """Return `function(self)`; as one call of the model, for which FSDP gathers all weights."""
        return function(self)

    def loss(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        *,
        document_ids_BT: Tensor | None = None,
        loss_fn: LossFn | None = None,
    ) -> Tensor:
        """Return the summed cross-entropy, in nats, over the targets that are not -100.

        With `loss_fn`, return the loss that it computes from the nats [B, T] of all positions
        (fp32, 0 where the target is -100), with the gradient that it also returns.
        """
        x_ND = self.hidden_states(ids_BT, document_ids_BT=document_ids_BT).flatten(0, 1)
        return self.lm_head.loss(x_ND, targets_BT, loss_fn, self.is_compiled)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors with Hugging Face's names or the published ones (see `tensor_names`)."""
        if "token_embedding_table.weight" in state_dict:
            state_dict = convert_from_published(state_dict, self.config)
        weight = state_dict.get("lm_head.weight")
        if self.config.tie_embeddings:  # a file may repeat the embedding under this name
            state_dict = {name: t for name, t in state_dict.items() if name != "lm_head.weight"}
        elif weight is not None and len(weight) == self.config.vocab_size:
            padding = (0, 0, 0, self.config.padded_vocab_size - self.config.vocab_size)
            state_dict = {**state_dict, "lm_head.weight": F.pad(weight, padding)}
        return super().load_state_dict(state_dict, strict, assign)
