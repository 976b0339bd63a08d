"""The transformer: a Llama-style decoder in plain PyTorch.

    ids ─▶ embedding ─▶ [ + attention(norm) ─▶ + feed-forward(norm) ] × layers ─▶ norm ─▶ head

Modules have the names that Hugging Face's `LlamaForCausalLM` gives its tensors, so the state dict
is the file on disk.

Tensor names carry their shape, here and in the complete package:
B batch, T time, D width, H query heads, K key/value heads, E head size, F feed-forward width,
V vocabulary, N = B·T tokens.

Weights keep the dtype they are given (fp32 in training) and are cast where they are used:
`compute_dtype`, the dtype of the activations, decides the precision of the matrix products.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gnano.config.model_config import ModelConfig
from gnano.model.fused_cross_entropy import LossFn, fused_linear_cross_entropy, token_nll
from gnano.model.kv_cache import KVCache
from gnano.model.layers import (
    Decoder,
    LMHead,
    PrefixTree,
    document_mask,
    prefix_tree_mask,
    ragged_causal_mask,
    rope_table,
)
from gnano.model.tensor_names import convert_from_published, is_published_layout


class GPT(nn.Module):
    """The language model: ids in, logits or loss out.

    Signature and defaults are those of the published reference model with 1,050,002,688
    parameters. `GPT.from_config(PRESETS["124m"])` builds other shapes.
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
        self.rope_args = self.config.head_size, block_size, rope_theta
        self.model = Decoder(self.config)
        self.lm_head = LMHead(self.config)

    @classmethod
    def from_config(cls, config: ModelConfig) -> "GPT":
        """Build a model of this shape with random weights."""
        return cls(**asdict(config))

    def compile_blocks(self) -> None:
        """Compile the blocks and the head's loss in place, for training; before FSDP or DDP.

        All blocks share one compilation, done in the first step. Modules and parameter names do
        not change; evaluation and generation run uncompiled.
        """
        for block in self.model.layers:
            # the forward and not the module, so that FSDP's hooks stay outside
            block.forward = torch.compile(block.forward, fullgraph=True)
        self.is_compiled = True

    def num_parameters(self) -> int:
        """Return the number of parameters, without the head's padding."""
        padding = (self.config.padded_vocab_size - self.config.vocab_size) * self.config.n_embd
        return sum(p.numel() for p in self.parameters()) - padding

    def hidden_states(
        self,
        ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        document_ids_BT: Tensor | None = None,
        prefix_tree: PrefixTree | None = None,
    ) -> Tensor:
        """Return the final hidden states [B, T, D]; with a cache, ids continue its contents.

        With `document_ids_BT` (integers) a position attends within its own document only, so
        that several documents in a row do not affect each other. With `prefix_tree` a row holds
        several continuations of one prefix, each computed as if it were the only one; with a
        cache, whose rows must then have equal lengths, they follow its contents. The caller
        checks that the positions of a prefix tree fit in the context.

        Raises ValueError where the positions exceed the context (`block_size`), and for document
        ids together with a cache, which does not store those of its contents.
        """
        if cache is not None and document_ids_BT is not None:
            raise ValueError(
                "A KV cache holds one document per row; pass document_ids_BT or cache, not both."
            )
        config = self.config
        past, tokens = cache.max_length if cache else 0, ids_BT.shape[1]
        end = past + tokens
        if end > config.block_size and prefix_tree is None:
            raise ValueError(
                f"{end:,} tokens do not fit in the model's context of {config.block_size:,}."
            )
        # positions continue from one document to the next: with RoPE, attention depends only
        # on distances, and those within a document are right wherever it starts
        mask_B1TT = None if document_ids_BT is None else document_mask(document_ids_BT)
        positions_BT = cache.advance(tokens) if cache else None
        if positions_BT is not None:
            mask_B1TT = ragged_causal_mask(positions_BT, end)
        if prefix_tree is not None:
            assert positions_BT is None, "a prefix tree needs cache rows of equal length"
            positions_BT = prefix_tree.positions_BT
            mask_B1TT = prefix_tree_mask(prefix_tree.branch_ids_BT, past)
        positions = slice(past, end) if positions_BT is None else positions_BT
        rope = rope_table(*self.rope_args, ids_BT.device).select(positions)
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
                    x_BTD = checkpoint(
                        block,
                        *inputs,
                        use_reentrant=False,
                        preserve_rng_state=self.uses_rng or config.dropout > 0,
                    )
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
        weight_VD, targets_N = self.lm_head.weight, targets_BT.flatten()
        head = x_ND, weight_VD, targets_N, self.config.vocab_size
        if loss_fn is None:
            return fused_linear_cross_entropy(*head, self.is_compiled)
        value, grads_BT = loss_fn(token_nll(*head).view_as(targets_BT))
        if not torch.is_grad_enabled():
            return value
        weighted = fused_linear_cross_entropy(*head, self.is_compiled, grads_BT.flatten())
        # the exact value, with the gradient of the weighted sum
        return value + (weighted - weighted.detach())

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors with Hugging Face's names or the published ones (see `tensor_names`)."""
        if is_published_layout(state_dict):
            state_dict = convert_from_published(state_dict, self.config)
        return super().load_state_dict(state_dict, strict, assign)
