"""Decoding steps of a GPU: replayed as one launch, sampled on the device, read a few steps late.

    host      step n + 2 is launched     ids of step n arrive: text, stop strings, rows that end
                  │                           ▲
    device    ids ─▶ graph: embedding ─▶ blocks ─▶ logits ─▶ ids ─▶ the next step's graph …

A model keeps one cache and its graphs, one for each number of rows (a power of two) and kind of
sampling, and the next text reuses both. With each step the host sends one small tensor: of each row
the position, how to sample, the random number, and the id, or the row of the step before that has
it. So nothing waits, rows may move, and what was computed for a row that had ended is dropped.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.infer.compiled_decode import (
    BLOCKS_PER_COMPILE,
    CACHE_LENGTH_STEP,
    CompiledDecoder,
    KVBuffers,
    compile_function,
)
from gnano.infer.decode_ops import decode_attention, decode_linear
from gnano.infer.request import SequenceState
from gnano.infer.sampling import DrawMode, draw_mode, draw_settings, draw_tokens
from gnano.model.attention import KVCache
from gnano.model.rope import Rope, rope_table
from gnano.model.transformer import GPT, Block, RMSNorm

STEPS_AHEAD = 2  # launched before the ids of a step are read
INPUTS = 7  # of a row: id, or ~(row of the step before); position; five settings of `draw_tokens`


@dataclass(frozen=True)
class PendingStep:
    """A launched step whose ids have not been read."""

    rows: Sequence[SequenceState]
    ids_B: Tensor  # in pinned memory; −1 where the logits are not finite
    event: torch.cuda.Event | None

    def read(self) -> list[int | None]:
        """Return the ids; waits for the step."""
        if self.event is not None:
            self.event.synchronize()
        return [None if token < 0 else token for token in self.ids_B.tolist()]


def new_decoder(model: GPT) -> "CompiledDecoder | GraphDecoder":
    """Return the compiled step for the model's device; it compiles when it is first used."""
    is_on_gpu = model.model.embed_tokens.weight.device.type == "cuda"
    return GraphDecoder(model) if is_on_gpu else CompiledDecoder(model)


class GraphDecoder:
    """The compiled step of a model with fused projections, and the runner that texts share."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.device = model.model.embed_tokens.weight.device
        self.decode_blocks = compile_function(_decode_blocks, self.device)
        self.embed = compile_function(_embed, self.device)
        self.compute_logits = compile_function(_compute_logits, self.device)
        self.mark_not_finite = compile_function(_mark_not_finite, self.device)
        self.runner: GraphRunner | None = None

    def warm_up(self) -> None:
        """Compile and capture now, for one row and the likeliest token."""
        config = self.model.config
        runner = self.reserve_runner(self, 1, min(config.block_size, 1_024), config.vocab_size)
        with torch.inference_mode():
            runner.step([0])
        runner.owner = None

    def reserve_runner(
        self, owner: object, rows: int, max_length: int, vocab_size: int
    ) -> "GraphRunner":
        """Return a runner with an empty cache, until the owner is garbage.

        It is the last one, with its graphs, unless that has another owner or is too small.
        """
        runner, config = self.runner, self.model.config
        if (
            runner is None
            or (runner.owner is not None and runner.owner() is not None)
            or rows > len(runner.cache.lengths)
            or max_length > runner.cache.capacity
            or vocab_size != runner.vocab_size
        ):
            self.runner = runner = None  # its memory is free before more is allocated
            # a power of two: longer and longer texts replace it a few times only
            capacity = max(CACHE_LENGTH_STEP, 1 << (max_length - 1).bit_length())
            weight = self.model.model.embed_tokens.weight
            dtype = self.model.compute_dtype or weight.dtype
            capacity = min(capacity, config.block_size)
            cache = KVCache(config, rows, capacity, dtype, self.device)
            self.runner = runner = GraphRunner(self, cache, vocab_size)
        else:
            runner.cache.lengths[:] = 0  # what is beyond a row's length is never read
        runner.owner = weakref.ref(owner)
        runner.pending.clear()
        return runner


class GraphRunner:
    """Runs steps on one cache and keeps the CUDA graphs; on a CPU, in tests, there are none."""

    def __init__(self, decoder: GraphDecoder, cache: KVCache, vocab_size: int) -> None:
        self.decoder, self.cache, self.vocab_size = decoder, cache, vocab_size
        self.owner: weakref.ref[object] | None = None
        self.pending: deque[PendingStep] = deque()
        rows, device = len(cache.lengths), decoder.device
        self.ids_B = torch.zeros(rows, dtype=torch.int64, device=device)  # of the last step
        self.inputs_BN = torch.zeros(rows, INPUTS, dtype=torch.int64, device=device)
        self.graphs: dict[tuple[int, DrawMode], tuple[Any, Tensor]] = {}
        self.pool: Any = None  # memory of all graphs, as only one runs at a time

    def step(self, ids: Sequence[int]) -> Tensor:
        """Return logits [B, V] after the next token of each of the first B rows.

        The next step overwrites them.
        """
        settings = (0.0,) * (INPUTS - 2)
        return self._run([(token, settings) for token in ids], "greedy")

    def launch(self, rows: Sequence[SequenceState]) -> None:
        """Start a step for the sequences in the first rows, which may have moved there."""
        before = self.pending[-1].rows if self.pending else ()
        previous = {sequence: number for number, sequence in enumerate(before)}
        sources = [
            ~previous[sequence] if sequence in previous else sequence.output_ids[-1]
            for sequence in rows
        ]
        params = [sequence.request.sampling for sequence in rows]
        settings = map(draw_settings, params, (sequence.generator for sequence in rows))
        self._run(list(zip(sources, settings, strict=True)), draw_mode(params))
        on_gpu = self.decoder.device.type == "cuda"
        ids_B = torch.empty(len(rows), dtype=torch.int64, pin_memory=on_gpu)
        ids_B.copy_(self.ids_B[: len(rows)], non_blocking=True)
        event = None
        if on_gpu:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self.pending.append(PendingStep(tuple(rows), ids_B, event))

    def _run(self, inputs: Sequence[tuple[int, Sequence[float]]], mode: DrawMode) -> Tensor:
        cache, rows, on_gpu = self.cache, len(inputs), self.decoder.device.type == "cuda"
        assert cache.lengths.max() < cache.capacity, "the cache is full"
        # a graph has a fixed number of rows, so unused ones are computed too
        padded = min(1 << (rows - 1).bit_length(), len(cache.lengths))
        sent_BN = torch.zeros(padded, INPUTS, dtype=torch.int64, pin_memory=on_gpu)
        array = sent_BN.numpy()
        array[:, 1] = cache.lengths[:padded]
        array[:rows, 0] = [source for source, _ in inputs]
        array.view(np.float64)[:rows, 2:] = [settings for _, settings in inputs]
        self.inputs_BN[:padded].copy_(sent_BN, non_blocking=True)
        cache.lengths[:rows] += 1
        if not on_gpu:
            logits_BV, ids_B = self._compute(padded, mode)
            self.ids_B[:padded] = ids_B
        else:
            if (padded, mode) not in self.graphs:
                self.graphs[padded, mode] = self._capture(padded, mode)
            graph, logits_BV = self.graphs[padded, mode]
            graph.replay()
        return logits_BV[:rows]

    def _capture(self, padded: int, mode: DrawMode) -> tuple[Any, Tensor]:
        # compiles and warms up: repeated, it computes and stores the same
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._compute(padded, mode)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits_BV, ids_B = self._compute(padded, mode)
            self.ids_B[:padded] = ids_B
        self.pool = graph.pool()
        return graph, logits_BV

    def _compute(self, padded: int, mode: DrawMode) -> tuple[Tensor, Tensor]:
        """Return logits [B, V] and the sampled ids [B]."""
        decoder, model, inputs_BN = self.decoder, self.decoder.model, self.inputs_BN[:padded]
        x_BD = decoder.embed(model.model.embed_tokens.weight, inputs_BN, self.ids_B)
        x_BD = x_BD.to(model.compute_dtype or x_BD.dtype)
        buffers = [(layer.k_BKTE[:padded], layer.v_BKTE[:padded]) for layer in self.cache.layers]
        for view in chain.from_iterable(buffers):  # compiled for every capacity
            torch._dynamo.maybe_mark_dynamic(view, 2)
        table = rope_table(model.config, decoder.device)
        for first in range(0, len(buffers), BLOCKS_PER_COMPILE):
            group = slice(first, first + BLOCKS_PER_COMPILE)
            blocks = list(model.model.layers[group])
            x_BD = decoder.decode_blocks(blocks, x_BD, table, inputs_BN[:, 1], buffers[group])
        logits_BV = decoder.compute_logits(model.model.norm, model.lm_head, x_BD)
        logits_BV = logits_BV[:, : self.vocab_size]
        ids_B = draw_tokens(logits_BV, inputs_BN[:, 2:].view(torch.float64), mode)
        return logits_BV, decoder.mark_not_finite(logits_BV, ids_B)


def _embed(weight_VD: Tensor, inputs_BN: Tensor, last_ids_B: Tensor) -> Tensor:
    source_B = inputs_BN[:, 0]
    ids_B = torch.where(source_B < 0, last_ids_B[(~source_B).clamp_min(0)], source_B)
    # −1: the row has failed, which the host does not know yet
    return F.embedding(ids_B.clamp_min(0), weight_VD)


def _decode_blocks(
    blocks: Sequence[Block], x_BD: Tensor, table: Rope, positions_B: Tensor, buffers: KVBuffers
) -> Tensor:
    for block, (k_BKTE, v_BKTE) in zip(blocks, buffers, strict=True):
        attention, mlp = block.self_attn, block.mlp
        H, K = attention.H, attention.K
        qkv_BHE = decode_linear(attention.qkv_proj, x_BD, norm=block.input_layernorm)
        qkv_BHE = qkv_BHE.view(len(x_BD), H + 2 * K, -1)
        if attention.has_qk_norm:
            q_BHE, k_BKE, v_BKE = torch.split(qkv_BHE, [H, K, K], dim=1)
            qkv_BHE = torch.cat([attention.q_norm(q_BHE), attention.k_norm(k_BKE), v_BKE], dim=1)
        y_BHE = decode_attention(qkv_BHE, *table, positions_B, k_BKTE, v_BKTE)
        x_BD = decode_linear(attention.o_proj, y_BHE.flatten(1), residual_BO=x_BD)
        gate_up_BF = decode_linear(mlp.gate_up_proj, x_BD, norm=block.post_attention_layernorm)
        x_BD = decode_linear(mlp.down_proj, gate_up_BF, residual_BO=x_BD, is_gated=True)
    return x_BD


def _compute_logits(norm: RMSNorm, head: nn.Module, x_BD: Tensor) -> Tensor:
    return decode_linear(head, x_BD, norm=norm).float()


def _mark_not_finite(logits_BV: Tensor, ids_B: Tensor) -> Tensor:
    # NaN is both the smallest and the largest of its row
    is_finite_B = logits_BV.amin(-1).isfinite() & logits_BV.amax(-1).isfinite()
    return torch.where(is_finite_B, ids_B, -1)
