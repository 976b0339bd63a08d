"""The loss on held-out text, summed over ranks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch, iter_heldout_batches
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.model.devices import accumulation_dtype
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.utils.stop_request import StopRequestedError

BatchT = TypeVar("BatchT")


# the metrics of each task of `train.eval_tasks`; raises CutShortError where the run is to stop
TaskEvaluator = Callable[[GPT, DistContext, Callable[[], bool]], dict[str, Any]]


# builds one on all ranks, once; raises ValueError or OSError where items are missing
TaskEvaluatorFactory = Callable[[Recipe, Tokenizer, DistContext], TaskEvaluator]


@dataclass(frozen=True)
class HeldoutLoss:
    """Nats and bytes of each source's held-out tokens."""

    nats: dict[str, float]
    bytes: dict[str, int]

    @property
    def bits_per_byte(self) -> float:
        return sum(self.nats.values()) / math.log(2) / sum(self.bytes.values())

    @property
    def objective(self) -> float:
        """What tells which of two checkpoints is better: the lower, the better."""
        return self.bits_per_byte

    def to_metrics(self) -> dict[str, object]:
        per_source = {
            name: round(nats / math.log(2) / self.bytes[name], 5)
            for name, nats in self.nats.items()
        }
        return {"bits_per_byte": round(self.bits_per_byte, 5), "sources": per_source}


class HeldoutSet:
    """The held-out rows of a corpus, cut to the model's context."""

    def __init__(
        self,
        corpus: TokenizedCorpus,
        weights: dict[str, float],
        length: int,
        batch_size: int,
        world: DistContext | None = None,
    ) -> None:
        self.corpus, self.length, self.batch_size = corpus, length, batch_size
        self.world = world or DistContext(torch.device("cpu"))
        shares = corpus.ordered_weights(weights)
        self.source_shares = [share / sum(shares) for share in shares]
        self.token_bytes = torch.from_numpy(corpus.tokenizer.token_bytes.astype(np.int64))
        self._read_rows()

    def __bool__(self) -> bool:
        return any(self.rows)

    def is_covered_by(self, tokens: int) -> bool:
        """Does a measurement of so many tokens take all there are?"""
        rows = enumerate(self.rows)
        return all(self._row_count(source, tokens) >= len(found) for source, found in rows)

    def missing(self, tokens: int) -> str | None:
        """Which source is still being prepared and has too few for `loss(model, tokens)`."""
        if self._incomplete_source(tokens) is None:
            return None
        self.corpus.refresh()
        self._read_rows()
        short = self._incomplete_source(tokens)
        return short and (
            f"waiting for `gnano prepare`: held-out text of source {short!r} "
            f"in {self.corpus.folder}"
        )

    def evaluate(
        self, model: GPT, tokens: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> HeldoutLoss:
        """Over all held-out tokens, or about so many, by the sources' weights.

        Raises CutShortError where `stop` says, on any of the ranks, that it is to end.

        These are the first of each source: the same ones whatever the budget, and already
        there when the rest is still being prepared.
        """
        if tokens is None and not self.corpus.manifest.complete:
            self.corpus.refresh()
            self._read_rows()
        nats: dict[str, float] = {}
        size: dict[str, int] = {}
        work = partial(sum_batch_loss, model, self.token_bytes)
        padding = torch.zeros(1, self.length, dtype=torch.long)
        empty = Batch(padding, torch.full_like(padding, IGNORE_INDEX), None)
        with eval_mode(model):
            for source, (name, rows) in enumerate(
                zip(self.corpus.source_names, self.rows, strict=True)
            ):
                if rows:
                    part = rows if tokens is None else rows[: self._row_count(source, tokens)]
                    pairs = iter_heldout_batches(part, self.length, self.batch_size)
                    batches, count = (
                        (Batch(x, y, None) for x, y in pairs),
                        -(-len(part) // self.batch_size),
                    )
                    sums = sum_over_ranks(work, batches, count, empty, self.world, should_stop)
                    nats[name], size[name] = sums[0], round(sums[1])
        return HeldoutLoss(nats, size)

    def _read_rows(self) -> None:
        corpus = self.corpus
        self.rows = [corpus.heldout_rows(n, self.length) for n in range(len(corpus.source_names))]

    def _row_count(self, source: int, tokens: int) -> int:
        """How many rows of a source make up its share of so many tokens."""
        return max(1, round(tokens * self.source_shares[source] / self.length))

    def _incomplete_source(self, tokens: int) -> str | None:
        for source, name in enumerate(self.corpus.source_names):
            complete = self.corpus.manifest.sources[name].complete
            # one more: while there may be others to come, the last row is not final
            if not complete and len(self.rows[source]) <= self._row_count(source, tokens):
                return name
        return None


def sum_batch_loss(model: GPT, token_bytes: Tensor, batch: Batch) -> Tensor:
    """Nats, bytes and tokens [3] of a batch's targets that count, on the model's device."""
    device = next(model.parameters()).device
    targets = batch.targets_BT[batch.targets_BT != IGNORE_INDEX]
    batch = batch.map_tensors(lambda tensor: tensor.to(device))
    nats = model.loss(batch.inputs_BT, batch.targets_BT, document_ids_BT=batch.segments_BT)
    counts = [int(token_bytes[targets].sum()), len(targets)]
    dtype = accumulation_dtype(device)
    return torch.cat([nats.to(dtype)[None], torch.tensor(counts, dtype=dtype, device=device)])


def sum_over_ranks(
    sum_batch: Callable[[BatchT], Tensor],
    batches: Iterator[BatchT],
    batch_count: int,
    empty_batch: BatchT,
    world: DistContext,
    should_stop: Callable[[], bool],
) -> list[float]:
    """The sums of `work` over `count` batches, of which each rank computes its share.

    `empty` is a batch in which nothing counts. Raises CutShortError where `stop` says, on any
    of the ranks, that it is to end.
    """
    parts = []
    for number, batch in enumerate(batches):
        if number % world.world_size == 0:
            world.set_phase("measuring the held-out loss")
            if world.all_reduce_max(should_stop())[0]:
                raise StopRequestedError
        if number % world.world_size == world.rank:
            parts.append(sum_batch(batch))
    # a sharded model is put together by all ranks, so each computes as often as the first
    if not parts or (
        batch_count % world.world_size and world.rank >= batch_count % world.world_size
    ):
        parts.append(sum_batch(empty_batch))
    found: list[float] = world.all_reduce_sum(torch.stack(parts).sum(0)).tolist()
    return found


@contextmanager
def eval_mode(model: GPT) -> Iterator[None]:
    """Without dropout and without gradients; afterwards as before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
