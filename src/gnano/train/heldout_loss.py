"""Held-out data and a model's loss on it, summed over the ranks.

`HeldoutSet` is the held-out text of a corpus. Its loss in bits per byte is the cost of all held-out
tokens in bits, divided by the UTF-8 bytes that they encode: a number that does not depend on the
tokenizer and compares with any compressor. `HeldoutExamples` are the held-out examples of a tuning
run. Several ranks share the rows and add up their sums.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch, TokenizedCorpus, iter_heldout_batches
from gnano.model.devices import accumulation_dtype
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.utils.stop_request import StopRequestedError

BatchT = TypeVar("BatchT")

# the metrics of each task of `train.eval_tasks`; raises StopRequestedError when the run must stop
TaskEvaluator = Callable[[GPT, DistContext, Callable[[], bool]], dict[str, Any]]

# builds one, once, on all ranks; raises ValueError or OSError where task items are missing
TaskEvaluatorFactory = Callable[[Recipe, Tokenizer, DistContext], TaskEvaluator]


class EvalResult(Protocol):
    """The result of an evaluation on held-out data."""

    @property
    def objective(self) -> float:
        """The number by which checkpoints are compared; lower is better."""

    def to_metrics(self) -> dict[str, Any]:
        """Return the metrics for the log."""


@dataclass(frozen=True)
class HeldoutLoss:
    """Nats and bytes of each source's held-out tokens."""

    nats: dict[str, float]
    bytes: dict[str, int]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all sources."""
        return sum(self.nats.values()) / math.log(2) / sum(self.bytes.values())

    @property
    def objective(self) -> float:
        """The number by which checkpoints are compared; lower is better."""
        return self.bits_per_byte

    def to_metrics(self) -> dict[str, object]:
        """Return bits per byte in all and of each source."""
        per_source = {
            name: round(nats / math.log(2) / self.bytes[name], 5)
            for name, nats in self.nats.items()
        }
        return {"bits_per_byte": round(self.bits_per_byte, 5), "sources": per_source}


class HeldoutSet:
    """The held-out text of a corpus, in rows of at most `length` tokens."""

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
        """Return whether an evaluation of this many tokens covers all rows."""
        return all(self._row_count(n, tokens) >= len(rows) for n, rows in enumerate(self.rows))

    def missing(self, tokens: int) -> str | None:
        """Return a message while a source in preparation has too few rows for this many tokens."""
        if self._incomplete_source(tokens) is None:
            return None
        self.corpus.refresh()
        self._read_rows()
        source = self._incomplete_source(tokens)
        return source and (
            f"waiting for `gnano prepare`: held-out text of source {source!r} "
            f"in {self.corpus.folder}"
        )

    def evaluate(
        self, model: GPT, tokens: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> HeldoutLoss:
        """Return the loss on all held-out tokens, or on about `tokens`, by the sources' weights.

        A budget takes the first rows of each source, so they are the same for every evaluation
        and exist while the rest is still being prepared. Raises StopRequestedError where
        `should_stop` returns True on any rank.
        """
        if tokens is None and not self.corpus.manifest.complete:
            self.corpus.refresh()
            self._read_rows()
        nats: dict[str, float] = {}
        num_bytes: dict[str, int] = {}
        sum_batch = partial(sum_batch_loss, model, self.token_bytes)
        padding = torch.zeros(1, self.length, dtype=torch.long)
        empty = Batch(padding, torch.full_like(padding, IGNORE_INDEX), None)
        with eval_mode(model):
            for source, name in enumerate(self.corpus.source_names):
                rows = self.rows[source]
                if tokens is not None:
                    rows = rows[: self._row_count(source, tokens)]
                if not rows:
                    continue
                pairs = iter_heldout_batches(rows, self.length, self.batch_size)
                batches = (Batch(x, y, None) for x, y in pairs)
                count = -(-len(rows) // self.batch_size)
                sums = sum_over_ranks(sum_batch, batches, count, empty, self.world, should_stop)
                nats[name], num_bytes[name] = sums[0], round(sums[1])
        return HeldoutLoss(nats, num_bytes)

    def _read_rows(self) -> None:
        names = self.corpus.source_names
        self.rows = [self.corpus.heldout_rows(n, self.length) for n in range(len(names))]

    def _row_count(self, source: int, tokens: int) -> int:
        """Return the number of rows of a source's share of a budget of tokens."""
        return max(1, round(tokens * self.source_shares[source] / self.length))

    def _incomplete_source(self, tokens: int) -> str | None:
        for source, name in enumerate(self.corpus.source_names):
            is_complete = self.corpus.manifest.sources[name].complete
            # one row more: the last row is not final while others may follow
            if not is_complete and len(self.rows[source]) <= self._row_count(source, tokens):
                return name
        return None


@dataclass(frozen=True)
class CategoryLoss:
    """Sums over the held-out examples of each category; a subclass defines the columns."""

    sums: dict[str, list[float]]

    def total(self, column: int) -> float:
        """Return the sum of a column over all categories."""
        return sum(sums[column] for sums in self.sums.values())


class HeldoutExamples:
    """The held-out examples of each category; every evaluation covers all of them."""

    def __init__(
        self,
        rows_by_category: Mapping[str, Any],
        batch_size: int,
        world: DistContext,
        sum_batch: Callable[[GPT, Any], Tensor],
        build_result: Callable[[dict[str, list[float]]], EvalResult],
    ) -> None:
        self.rows_by_category = dict(sorted(rows_by_category.items()))
        self.batch_size, self.world = batch_size, world
        self.sum_batch, self.build_result = sum_batch, build_result

    def __bool__(self) -> bool:
        return bool(self.rows_by_category)

    def is_covered_by(self, tokens: int) -> bool:
        """Return True: an evaluation has no budget."""
        return True

    def missing(self, tokens: int) -> str | None:
        """Return None: the examples are complete."""
        return None

    def evaluate(
        self, model: GPT, tokens: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> EvalResult:
        """Return the result; raise StopRequestedError where any rank should stop."""
        sums = {}
        sum_batch = partial(self.sum_batch, model)
        with eval_mode(model):
            for name, dataset in self.rows_by_category.items():
                rows, size = dataset.rows, self.batch_size
                starts = range(0, len(rows), size)
                batches = (dataset.collate(rows[start : start + size]) for start in starts)
                empty = dataset.collate([[]])
                sums[name] = sum_over_ranks(
                    sum_batch, batches, len(starts), empty, self.world, should_stop
                )
        return self.build_result(sums)


def sum_batch_loss(model: GPT, token_bytes: Tensor, batch: Batch) -> Tensor:
    """Return nats, bytes and tokens [3] of the targets that count, on the model's device."""
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
    """Return the sums over `batch_count` batches, of which each rank computes its share.

    In `empty_batch` no target counts. Raises StopRequestedError where any rank should stop.
    """
    parts = []
    for number, batch in enumerate(batches):
        if number % world.world_size == 0:
            world.set_phase("evaluating the held-out loss")
            if world.all_reduce_max(should_stop())[0]:
                raise StopRequestedError
        if number % world.world_size == world.rank:
            parts.append(sum_batch(batch))
    # all ranks gather a sharded model together, so each computes as often as rank 0
    incomplete_round = batch_count % world.world_size
    if not parts or (incomplete_round and world.rank >= incomplete_round):
        parts.append(sum_batch(empty_batch))
    sums: list[float] = world.all_reduce_sum(torch.stack(parts).sum(0)).tolist()
    return sums


@contextmanager
def eval_mode(model: GPT) -> Iterator[None]:
    """Disable dropout and gradients, and restore the mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
