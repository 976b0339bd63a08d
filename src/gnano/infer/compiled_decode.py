"""A compiled decoding step: one more token in each row.

    ids, positions ─▶ embedding ─▶ [4 blocks] ─▶ [4 blocks] ─▶ … ─▶ [norm ─▶ head] ─▶ logits

All groups of four blocks share one compilation. Matrix products stay PyTorch's; the operations
between two products become one kernel. For a GPU see `gnano.infer.graph_decode`.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gnano.infer.weight_formats import without_onednn_for_one_row
from gnano.model.attention import KVCache, LayerCache
from gnano.model.rope import Rope, rope_table
from gnano.model.transformer import GPT

BLOCKS_PER_COMPILE = 4  # more take longer to compile and gain little
CACHE_LENGTH_STEP = 256  # the attended part of the cache grows by this many positions

KVBuffers = Sequence[tuple[Tensor, Tensor]]  # keys and values [B, K, end, E] of each layer


class CompiledDecoder:
    """The compiled step of a model with fused projections; its first calls compile, for seconds."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        device = model.model.embed_tokens.weight.device
        self.decode_blocks = compile_function(_decode_blocks, device)
        self.compute_logits = compile_function(_compute_logits, device)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Compile now, for one row."""
        config, weight = self.model.config, self.model.model.embed_tokens.weight
        # views of the longest possible cache compile to code that fits all shorter ones
        cache = KVCache(config, 1, config.block_size, weight.dtype, weight.device)
        with without_onednn_for_one_row(self.model):
            DecodeRunner(self, cache).step([0])

    def decode(self, ids_B1: Tensor, positions_B1: Tensor, buffers: KVBuffers) -> Tensor:
        """Return logits [B, V] after these tokens; write their keys and values at the positions."""
        decoder = self.model.model
        table = rope_table(self.model.config, ids_B1.device)
        rope = Rope(table.cos_TE[positions_B1], table.sin_TE[positions_B1])
        keys_T = torch.arange(buffers[0][0].shape[2], device=ids_B1.device)
        mask_B11T = (keys_T <= positions_B1[..., None])[:, None]
        torch._dynamo.maybe_mark_dynamic(mask_B11T, 3)
        x_B1D = decoder.embed_tokens(ids_B1)
        for first in range(0, len(buffers), BLOCKS_PER_COMPILE):
            group = slice(first, first + BLOCKS_PER_COMPILE)
            blocks = list(decoder.layers[group])
            x_B1D = self.decode_blocks(blocks, x_B1D, rope, positions_B1, mask_B11T, buffers[group])
        y_BV: Tensor = self.compute_logits(decoder.norm, self.model.lm_head, x_B1D)
        return y_BV


class DecodeRunner:
    """Runs compiled steps on one cache, and keeps its views."""

    def __init__(self, decoder: CompiledDecoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.buffers: dict[tuple[int, int], KVBuffers] = {}

    def step(self, ids: Sequence[int]) -> Tensor:
        """Return logits [B, V] after the next token of each of the first B rows."""
        cache, rows, longest = self.cache, len(ids), int(self.cache.lengths.max())
        assert longest < cache.capacity, "the cache is full"
        end = min(-(-(longest + 1) // CACHE_LENGTH_STEP) * CACHE_LENGTH_STEP, cache.capacity)
        inputs = torch.zeros(2, rows, 1, dtype=torch.int64)
        inputs[0, :, 0] = torch.tensor(ids)
        inputs[1, :, 0] = torch.from_numpy(cache.lengths[:rows])
        cache.lengths[:rows] += 1
        if (rows, end) not in self.buffers:
            self.buffers[rows, end] = [
                (layer.k_BKTE[:rows, :, :end], layer.v_BKTE[:rows, :, :end])
                for layer in cache.layers
            ]
            for view in chain.from_iterable(self.buffers[rows, end]):
                torch._dynamo.maybe_mark_dynamic(view, 2)
        return self.decoder.decode(inputs[0], inputs[1], self.buffers[rows, end])


def _decode_blocks(
    blocks: Sequence[nn.Module],
    x_B1D: Tensor,
    rope: Rope,
    positions_B1: Tensor,
    mask_B11T: Tensor,
    buffers: KVBuffers,
) -> Tensor:
    for block, (k_BKTE, v_BKTE) in zip(blocks, buffers, strict=True):
        cache = LayerCache(k_BKTE, v_BKTE, end=k_BKTE.shape[2], positions_BT=positions_B1)
        x_B1D = block(x_B1D, rope, cache, mask_B11T)
    return x_B1D


def _compute_logits(norm: nn.Module, head: nn.Module, x_B1D: Tensor) -> Tensor:
    y_BV: Tensor = head(norm(x_B1D[:, 0])).float()
    return y_BV


def compile_function(
    function: Callable[..., Tensor], device: torch.device
) -> Callable[..., Tensor]:
    """Return the function, compiled as one graph."""
    # a new code object for each model: PyTorch limits the compilations of one code object, and
    # a process that loads many models would reach the limit
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    options: dict[str, Any] = {}
    if device.type == "cpu":  # multiply-add in one instruction
        options = {"cpp.enable_floating_point_contract_flag": "fast"}
    return torch.compile(own, fullgraph=True, options=options)
