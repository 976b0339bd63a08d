"""One token more in each row, in as few calls as can be: compiled, and on a GPU one CUDA graph.

    ids, places ─▶ embedding ─▶ [4 blocks] ─▶ [4 blocks] ─▶ … ─▶ [norm ─▶ head] ─▶ logits

All fours share one compilation. Their products stay PyTorch's own; what lies between two products
becomes one call. Nothing in it waits for the device.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gnano.infer.cpu_layers import without_onednn_for_one_row
from gnano.model.kv_cache import KVCache, LayerCache
from gnano.model.layers import Rope, ragged_causal_mask, rope_table
from gnano.model.transformer import GPT

BLOCKS_PER_COMPILE = 4  # compiled as one; more take longer to compile and gain little
CACHE_LENGTH_STEP = 256  # positions: so many more are looked at when those before are full

KVBuffers = Sequence[tuple[Tensor, Tensor]]  # keys and values [B, K, end, E] of each layer


class CompiledDecoder:
    """Of a model whose blocks are lean; its first calls compile, which takes seconds."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        device = model.model.embed_tokens.weight.device
        self.decode_blocks = _compile(_decode_blocks, device)
        self.compute_logits = _compile(_compute_logits, device)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Compile now, for a row alone."""
        config, weight = self.model.config, self.model.model.embed_tokens.weight
        # the longest cache there can be, of which a step sees a part: it is good for all others
        cache = KVCache(config, 1, config.block_size, weight.dtype, weight.device)
        with without_onednn_for_one_row(self.model):
            DecodeRunner(self, cache).step([0])

    def decode(self, ids_B1: Tensor, positions_B1: Tensor, buffers: KVBuffers) -> Tensor:
        """Return logits [B, V] after these tokens, whose keys and values go to these places."""
        decoder, config = self.model.model, self.model.config
        table = rope_table(config.head_size, config.block_size, config.rope_theta, ids_B1.device)
        rope = table.select(positions_B1)
        mask_B11T = ragged_causal_mask(positions_B1, buffers[0][0].shape[2])
        torch._dynamo.maybe_mark_dynamic(mask_B11T, 3)
        x_B1D = decoder.embed_tokens(ids_B1)
        for first in range(0, len(buffers), BLOCKS_PER_COMPILE):
            several = slice(first, first + BLOCKS_PER_COMPILE)
            x_B1D = self.decode_blocks(
                list(decoder.layers[several]),
                x_B1D,
                rope,
                positions_B1,
                mask_B11T,
                buffers[several],
            )
        y_BV: Tensor = self.compute_logits(decoder.norm, self.model.lm_head, x_B1D)
        return y_BV


class DecodeRunner:
    """The steps of one cache: what each of them is to see, and on a GPU the graphs."""

    def __init__(self, decoder: CompiledDecoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.device = cache.layers[0].k_BKTE.device
        self.buffers: dict[tuple[int, int], KVBuffers] = {}
        self.graphs: dict[tuple[int, int], _CudaGraph] = {}

    def step(self, ids: Sequence[int]) -> Tensor:
        """Return logits [B, V] after the next token of each of the first B rows.

        On a GPU they are overwritten by the next step of as many rows.
        """
        cache, rows = self.cache, len(ids)
        assert cache.max_length < cache.capacity, "the cache is full"
        end = min(
            -(-(cache.max_length + 1) // CACHE_LENGTH_STEP) * CACHE_LENGTH_STEP, cache.capacity
        )
        graphed = self.device.type == "cuda"
        # a graph is of a fixed number of rows: those that nobody has are computed with them
        padded = min(1 << (rows - 1).bit_length(), len(cache.lengths)) if graphed else rows
        inputs = torch.zeros(2, padded, 1, dtype=torch.int64, pin_memory=graphed)
        inputs[0, :rows, 0] = torch.tensor(ids)
        inputs[1, :, 0] = torch.from_numpy(cache.lengths[:padded])
        cache.lengths[:rows] += 1
        buffers = self._visible_buffers(padded, end)
        if not graphed:
            return self.decoder.decode(inputs[0], inputs[1], buffers)
        if (padded, end) not in self.graphs:
            self.graphs[padded, end] = _CudaGraph(self.decoder, inputs.to(self.device), buffers)
        return self.graphs[padded, end].replay(inputs)[:rows]

    def _visible_buffers(self, rows: int, end: int) -> KVBuffers:
        """The part of the cache that a step may see, layer by layer."""
        if (rows, end) not in self.buffers:
            found = []
            for layer in self.cache.layers:
                views = layer.k_BKTE[:rows, :, :end], layer.v_BKTE[:rows, :, :end]
                for view in views:
                    torch._dynamo.maybe_mark_dynamic(view, 2)
                found.append(views)
            self.buffers[rows, end] = found
        return self.buffers[rows, end]


class _CudaGraph:
    """A step as one launch: the GPU goes through its kernels without being told each."""

    def __init__(self, decoder: CompiledDecoder, inputs_2B1: Tensor, buffers: KVBuffers) -> None:
        self.inputs_2B1 = inputs_2B1
        # compiles; run again, it gives the same and stores the same
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
        cache = LayerCache(k_BKTE, v_BKTE)
        cache.positions_BT, cache.end = positions_B1, k_BKTE.shape[2]
        x_B1D = block(x_B1D, rope, cache, mask_B11T)
    return x_B1D


def _compute_logits(norm: nn.Module, head: nn.Module, x_B1D: Tensor) -> Tensor:
    y_BV: Tensor = head(norm(x_B1D[:, 0])).float()
    return y_BV


def _compile(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    # a code object of its own: PyTorch counts compilations by it, and a process that opens many
    # models would come to the number at which it gives up
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    # CPU: a product and its sum in one instruction. GPU: one row times a matrix, which may be in
    # few bits, as a sum that reads it at the memory's pace and not as a product
    options: dict[str, dict[str, Any]] = {
        "cpu": {"cpp.enable_floating_point_contract_flag": "fast"},
        "cuda": {"coordinate_descent_tuning": True},
    }
    return torch.compile(own, fullgraph=True, options=options.get(device.type))
