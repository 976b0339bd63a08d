"""The evaluations of a run: its held-out data, when they are due, how an interrupted one resumes.

Held-out data is evaluated every `eval_every` steps, tasks every `eval_tasks_every`, and both at the
end. A run that starts from a base evaluates the base first. An interrupted evaluation is pending:
the checkpoint records it, and it runs before the run resumes, so that the log has the same metrics
as that of an uninterrupted run.

The `HeldoutSet` of a tuning run has its held-out examples, `HeldoutText` the held-out text of a
corpus. The loss of text in bits per byte is the cost of all held-out tokens in bits, divided by the
UTF-8 bytes that they encode: a number that does not depend on the tokenizer and compares with any
compressor. Several ranks share the rows and add up their sums.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch, HeldoutRow, TokenizedCorpus, iter_heldout_batches
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.train_step import TrainState
from gnano.utils.platform_support import accumulation_dtype
from gnano.utils.stop_request import SignalHandler, StopRequestedError

BatchT = TypeVar("BatchT")

# the metrics of each task of `train.eval_tasks`; raises StopRequestedError when the run must stop
TaskEvaluator = Callable[[GPT, DistContext, Callable[[], bool]], dict[str, Any]]

# builds one, once, on all ranks; raises ValueError or OSError where task items are missing
TaskEvaluatorFactory = Callable[[Recipe, Tokenizer, DistContext], TaskEvaluator]


class HeldoutResult(NamedTuple):
    """The result of an evaluation on held-out data."""

    objective: float  # by which checkpoints are compared; lower is better
    metrics: dict[str, Any]  # for the log
    sums: dict[str, list[float]]  # of each source or category; of text: nats, bytes, tokens


class Evaluator:
    """Evaluates a run's model on its held-out data and tasks, and remembers the best result."""

    def __init__(
        self,
        heldout: "HeldoutSet[Any]",
        task_evaluator: TaskEvaluator | None,
        train_state: TrainState,
        signals: SignalHandler,
    ) -> None:
        self.heldout, self.task_evaluator = heldout, task_evaluator
        self.train_state, self.signals = train_state, signals
        self.config, loaded = train_state.recipe.train, train_state.loaded_state
        self.is_pending: bool = loaded.get("eval_pending", False)
        self.latest_loss: tuple[int, float] = (-1, 0.0)  # step, objective
        self.best_loss: float | None = loaded.get("best_heldout")
        self.evals_since_best: int = loaded.get("evals_since_best", 0)

    def due(self, step: int) -> list[str]:
        """Return which of "heldout" and "tasks" are to be evaluated after this step."""
        intervals = {"heldout": self.config.eval_every}  # 0 means only at the end
        if self.task_evaluator:
            intervals["tasks"] = self.config.eval_tasks_every
        is_end = step in (0, self.config.steps)
        return [name for name, every in intervals.items() if is_end or (every and not step % every)]

    def evaluate(self, step: int) -> dict[str, Any]:
        """Run the evaluations that are due after a step, and return their metrics.

        Where a stop signal interrupts them the result is empty, and `is_pending` is set.
        """
        state, due, should_stop = self.train_state, self.due(step), self.signals.should_stop
        on_budget = step != self.config.steps
        metrics: dict[str, Any] = {}
        result = None
        try:
            if "heldout" in due:
                result = self.heldout.evaluate(state.model, on_budget, should_stop)
            if result:
                metrics["heldout"] = result.metrics
            if self.task_evaluator and "tasks" in due:
                metrics["tasks"] = self.task_evaluator(state.model, state.world, should_stop)
        except StopRequestedError:
            self.is_pending = True
            return {}
        self.is_pending = False
        # the last evaluation covers everything; it compares only if the earlier ones did too
        counts = self.heldout.rows_on_budget.items()
        if result and (on_budget or all(len(self.heldout.rows[n]) <= count for n, count in counts)):
            self.latest_loss = step, result.objective
            self.evals_since_best += 1
            if self.best_loss is None or result.objective < self.best_loss:
                self.best_loss, self.evals_since_best = result.objective, 0
        return metrics

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the state for the checkpoint after this step."""
        latest_step, loss = self.latest_loss
        return {
            "heldout": loss if latest_step == step else None,
            "eval_pending": self.is_pending,
            "best_heldout": self.best_loss,
            "evals_since_best": self.evals_since_best,
        }


@dataclass
class HeldoutSet(Generic[BatchT]):
    """Held-out rows by source or category."""

    rows: Mapping[str, Sequence[Any]]
    collate: Callable[[str, Sequence[Any]], BatchT]  # rows of a source to a batch
    empty_row: Any  # in which no target counts
    batch_size: int
    world: DistContext
    sum_batch: Callable[[GPT, BatchT], Tensor]
    summarize: Callable[[dict[str, list[float]]], HeldoutResult]
    rows_on_budget: Mapping[str, int] = field(default_factory=dict)  # of a source; else all

    def missing(self) -> str | None:
        """Return a message while rows on the budget are still being prepared."""
        return None

    def refresh(self) -> None:
        """Add the rows that have been prepared since."""

    def evaluate(
        self, model: GPT, on_budget: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> HeldoutResult | None:
        """Return the loss on all rows, or those on the budget; None where nothing is held out.

        Raises StopRequestedError where `should_stop` returns True on any rank.
        """
        if not on_budget:
            self.refresh()
        sums, size = {}, self.batch_size
        sum_batch = partial(self.sum_batch, model)
        with eval_mode(model):
            for name, all_rows in self.rows.items():
                rows = all_rows[: self.rows_on_budget.get(name)] if on_budget else all_rows
                if not rows:
                    continue
                starts = range(0, len(rows), size)
                batches = (self.collate(name, rows[start : start + size]) for start in starts)
                empty = self.collate(name, [self.empty_row])
                sums[name] = sum_over_ranks(
                    sum_batch, batches, len(starts), empty, self.world, should_stop
                )
        return self.summarize(sums) if sums else None


class HeldoutText(HeldoutSet[Batch]):
    """The held-out text of a corpus, in rows of at most `length` tokens.

    An evaluation on a budget takes about `budget` tokens: the first rows of each source, by the
    sources' weights. They are the same for every evaluation, and exist while the rest is still
    being prepared.
    """

    def __init__(
        self,
        corpus: TokenizedCorpus,
        weights: dict[str, float],
        length: int,
        batch_size: int,
        budget: int,
        world: DistContext,
    ) -> None:
        self.corpus, self.length, self.has_all_rows = corpus, length, False
        shares = corpus.ordered_weights(weights)
        token_bytes = torch.from_numpy(corpus.tokenizer.token_bytes.astype(np.int64))
        super().__init__(
            rows={},
            collate=self._collate,
            empty_row=HeldoutRow(np.zeros(1, np.uint16), 0),
            batch_size=batch_size,
            world=world,
            sum_batch=partial(sum_batch_loss, token_bytes),
            summarize=bits_per_byte_result,
            rows_on_budget={
                name: max(1, round(budget * (share / sum(shares)) / length))
                for name, share in zip(corpus.source_names, shares, strict=True)
            },
        )
        self.refresh()

    def _collate(self, name: str, rows: Sequence[HeldoutRow]) -> Batch:
        return Batch(*next(iter_heldout_batches(rows, self.length, len(rows))), None)

    def refresh(self) -> None:
        """Add the rows that have been prepared since."""
        if self.has_all_rows:
            return
        self.corpus.refresh()
        self.has_all_rows = self.corpus.manifest.complete
        names = self.corpus.source_names
        self.rows = {name: self.corpus.heldout_rows(n, self.length) for n, name in enumerate(names)}

    def missing(self) -> str | None:
        """Return a message while a source in preparation has too few rows for the budget."""
        for is_refreshed in (False, True):
            if is_refreshed:
                self.refresh()
            missing = [
                name
                for name, rows in self.rows.items()
                # one row more: the last row is not final while others may follow
                if len(rows) <= self.rows_on_budget[name]
                and not self.corpus.manifest.sources[name].complete
            ]
            if not missing:
                return None
        return (
            f"waiting for `gnano prepare`: held-out text of source {missing[0]!r} "
            f"in {self.corpus.folder}"
        )


def bits_per_byte_result(sums: dict[str, list[float]]) -> HeldoutResult:
    """Return bits per byte in all and of each source, from nats, bytes, and tokens."""
    nats, num_bytes, _ = (sum(column) for column in zip(*sums.values(), strict=True))
    bits_per_byte = nats / math.log(2) / num_bytes
    sources = {name: round(nats / math.log(2) / size, 5) for name, (nats, size, _) in sums.items()}
    metrics = {"bits_per_byte": round(bits_per_byte, 5), "sources": sources}
    return HeldoutResult(bits_per_byte, metrics, sums)


def sum_batch_loss(token_bytes: Tensor, model: GPT, batch: Batch) -> Tensor:
    """Return nats, bytes and tokens [3] of the targets that count, on the model's device."""
    device = next(model.parameters()).device
    targets = batch.targets_BT[batch.targets_BT != IGNORE_INDEX]
    batch = batch.map_tensors(methodcaller("to", device))
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
