"""A compiled decoding step: one more token in each row, on a GPU replayed as one CUDA graph.

    ids, positions ─▶ embedding ─▶ [4 blocks] ─▶ [4 blocks] ─▶ … ─▶ [norm ─▶ head] ─▶ logits

All groups of four blocks share one compilation. Matrix products stay PyTorch's; the operations
between two products become one kernel. Nothing waits for the device.
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
        self.decode_blocks = _compile(_decode_blocks, device)
        self.compute_logits = _compile(_compute_logits, device)

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
    """Runs compiled steps on one cache; keeps its views and, on a GPU, the CUDA graphs."""

    def __init__(self, decoder: CompiledDecoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.device = cache.layers[0].k_BKTE.device
        self.buffers: dict[tuple[int, int], KVBuffers] = {}
        self.graphs: dict[tuple[int, int], _CudaGraph] = {}

    def step(self, ids: Sequence[int]) -> Tensor:
        """Return logits [B, V] after the next token of each of the first B rows.

        On a GPU the next step with as many rows overwrites them.
        """
        cache, rows, longest = self.cache, len(ids), int(self.cache.lengths.max())
        assert longest < cache.capacity, "the cache is full"
        end = min(-(-(longest + 1) // CACHE_LENGTH_STEP) * CACHE_LENGTH_STEP, cache.capacity)
        graphed = self.device.type == "cuda"
        # a graph has a fixed number of rows, so unused ones are computed too
        padded = min(1 << (rows - 1).bit_length(), len(cache.lengths)) if graphed else rows
        inputs = torch.zeros(2, padded, 1, dtype=torch.int64, pin_memory=graphed)
        inputs[0, :rows, 0] = torch.tensor(ids)
        inputs[1, :, 0] = torch.from_numpy(cache.lengths[:padded])
        cache.lengths[:rows] += 1
        if (padded, end) not in self.buffers:
            self.buffers[padded, end] = [
                (layer.k_BKTE[:padded, :, :end], layer.v_BKTE[:padded, :, :end])
                for layer in cache.layers
            ]
            for view in chain.from_iterable(self.buffers[padded, end]):
                torch._dynamo.maybe_mark_dynamic(view, 2)
        buffers = self.buffers[padded, end]
        if not graphed:
            return self.decoder.decode(inputs[0], inputs[1], buffers)
        if (padded, end) not in self.graphs:
            self.graphs[padded, end] = _CudaGraph(self.decoder, inputs.to(self.device), buffers)
        return self.graphs[padded, end].replay(inputs)[:rows]


class _CudaGraph:
    """A step that the GPU replays as one launch instead of one per kernel."""

    def __init__(self, decoder: CompiledDecoder, inputs_2B1: Tensor, buffers: KVBuffers) -> None:
        self.inputs_2B1 = inputs_2B1
        # compiles and warms up: repeated, it computes and stores the same
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                decoder.decode(inputs_2B1[0], inputs_2B1[1], buffers)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits_BV = decoder.decode(inputs_2B1[0], inputs_2B1[1], buffers)

    def replay(self, inputs_2B1: Tensor) -> Tensor:
        """Return logits [B, V] for ids and positions, in memory that each replay overwrites."""
        self.inputs_2B1.copy_(inputs_2B1, non_blocking=True)
        self.graph.replay()
        return self.logits_BV


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


def _compile(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    # a new code object for each model: PyTorch limits the compilations of one code object, and
    # a process that loads many models would reach the limit
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    # CPU: multiply-add in one instruction. GPU: tunes the product of one row and a matrix, which
    # may be quantized, to be a sum that reads the matrix at memory bandwidth
    options: dict[str, dict[str, Any]] = {
        "cpu": {"cpp.enable_floating_point_contract_flag": "fast"},
        "cuda": {"coordinate_descent_tuning": True},
    }
    return torch.compile(own, fullgraph=True, options=options.get(device.type))
