"""The held-out loss of a model: bits per byte on the documents it does not train on.

The cost of all held-out tokens in bits, over the number of UTF-8 bytes they stand for: a
figure that does not depend on the tokenizer and compares with any compressor. Several ranks
share the rows and add up what they find.

The evaluations of a run: when they are due, and how an interrupted one is repeated.

Held-out text every so many steps, tasks every so many others, and both at the end. A run that
begins with a base measures it first. A measurement that is cut short is owed: the
checkpoint says so, and it is made up for before the run goes on, so that its log has the same
figures as one that was never stopped.
"""

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
from gnano.train.logging.metrics_logger import MetricsLogger
from gnano.train.tasks.training_task import HeldoutExamples
from gnano.train.train_step import TrainState
from gnano.utils.stop_request import InterruptedByStop, SignalHandler

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
                raise InterruptedByStop
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


class Evaluator:
    def __init__(
        self,
        heldout: HeldoutSet | HeldoutExamples,
        task_evaluator: TaskEvaluator | None,
        train_state: TrainState,
        signals: SignalHandler,
    ) -> None:
        self.heldout, self.task_evaluator, self.train_state, self.signals = (
            heldout,
            task_evaluator,
            train_state,
            signals,
        )
        self.config = train_state.recipe.train
        known = train_state.loaded_state
        self.is_pending: bool = known.get("unmeasured", False)
        self.latest_loss: tuple[int, float] = (-1, 0.0)  # step, what it is compared by
        self.best_loss: float | None = known.get("best")  # of those that compare
        self.evals_since_best: int = known.get("stale", 0)  # measurements since then

    @property
    def should_stop_early(self) -> bool:
        """Has the run been without a new best for as long as it may be?"""
        return 0 < self.config.early_stopping_patience <= self.evals_since_best

    def is_due(self, step: int) -> bool:
        """Is anything to be measured after this step?"""
        return self._is_heldout_due(step) or self._is_task_eval_due(step)

    def evaluate(self, row: dict[str, Any]) -> None:
        """Measure after the step of this row what is due, and add it."""
        model, step = self.train_state.model, row["step"]
        part = None if step == self.config.steps else self.config.eval_tokens
        found: dict[str, Any] = {}
        loss = None
        try:
            if self.heldout and self._is_heldout_due(step):
                loss = self.heldout.evaluate(model, part, self.signals.should_stop)
                found["heldout"] = loss.to_metrics()
            if self.task_evaluator and self._is_task_eval_due(step):
                found["tasks"] = self.task_evaluator(
                    model, self.train_state.world, self.signals.should_stop
                )
        except InterruptedByStop:
            self.is_pending = True
            row.pop("final", None)
            return
        self.is_pending = False
        row |= found
        # at the end it is over all there is, and compares where the others were too
        if loss and (part is not None or self.heldout.is_covered_by(self.config.eval_tokens)):
            self._update_best(step, loss.objective)

    def _is_heldout_due(self, step: int) -> bool:
        return step in (0, self.config.steps) or is_multiple_of(step, self.config.eval_every)

    def _is_task_eval_due(self, step: int) -> bool:
        ends = (0, self.config.steps)
        return self.task_evaluator is not None and (
            step in ends or is_multiple_of(step, self.config.eval_tasks_every)
        )

    def run_pending(self, metrics_logger: MetricsLogger) -> bool:
        """For what is owed from an earlier part of the run, or by its base; was anything?"""
        step = self.train_state.completed_steps
        if not self.is_pending and (step or not self.config.init_from):
            return False
        row = {"step": step, **({"final": True} if step == self.config.steps else {})}
        self.evaluate(row)
        if not self.is_pending:
            metrics_logger.log_update(**row)
        return not self.is_pending

    def state_dict(self, step: int) -> dict[str, Any]:
        """For the checkpoint after this step."""
        at, value = self.latest_loss
        measured = {"heldout": value if at == step else None, "unmeasured": self.is_pending}
        return {**measured, "best": self.best_loss, "stale": self.evals_since_best}

    def _update_best(self, step: int, value: float) -> None:
        self.latest_loss = step, value
        if self.best_loss is None or value < self.best_loss:
            self.best_loss, self.evals_since_best = value, 0
        else:
            self.evals_since_best += 1


def is_multiple_of(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
