"""The evaluations of a run: its held-out data, when they are due, how an interrupted one resumes.

Held-out data is evaluated every `eval_every` steps, tasks every `eval_tasks_every`, and both at the
end. A run that starts from a base evaluates the base first. An interrupted evaluation is pending:
the checkpoint records it, and it runs before the run resumes, so that the log has the same metrics
as that of an uninterrupted run.

`HeldoutSet` is the held-out text of a corpus. Its loss in bits per byte is the cost of all held-out
tokens in bits, divided by the UTF-8 bytes that they encode: a number that does not depend on the
tokenizer and compares with any compressor. `HeldoutExamples` are the held-out examples of a tuning
run. Several ranks share the rows and add up their sums.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch, TokenizedCorpus, iter_heldout_batches
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


class EvalResult(NamedTuple):
    """The result of an evaluation on held-out data."""

    objective: float  # by which checkpoints are compared; lower is better
    metrics: dict[str, Any]  # for the log
    sums: dict[str, list[float]]  # of each source or category; of text: nats, bytes, tokens


class Evaluator:
    """Evaluates a run's model on its held-out data and tasks, and remembers the best result."""

    def __init__(
        self,
        heldout: "HeldoutSet | HeldoutExamples",
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
        budget = None if step == self.config.steps else self.config.eval_tokens
        metrics: dict[str, Any] = {}
        result = None
        try:
            if "heldout" in due and not self.heldout.is_empty:
                result = self.heldout.evaluate(state.model, budget, should_stop)
                metrics["heldout"] = result.metrics
            if self.task_evaluator and "tasks" in due:
                metrics["tasks"] = self.task_evaluator(state.model, state.world, should_stop)
        except StopRequestedError:
            self.is_pending = True
            return {}
        self.is_pending = False
        # the last evaluation covers everything; it compares only if the earlier ones did too
        if result and (budget is not None or self.heldout.is_covered_by(self.config.eval_tokens)):
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

    def _read_rows(self) -> None:
        names = self.corpus.source_names
        self.rows = [self.corpus.heldout_rows(n, self.length) for n in range(len(names))]
        self.is_empty = not any(self.rows)

    def _row_counts(self, tokens: int) -> list[int]:
        """Return the number of rows of each source's share of a budget of tokens."""
        return [max(1, round(tokens * share / self.length)) for share in self.source_shares]

    def is_covered_by(self, tokens: int) -> bool:
        """Return whether an evaluation of this many tokens covers all rows."""
        counts = self._row_counts(tokens)
        return all(count >= len(rows) for count, rows in zip(counts, self.rows, strict=True))

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

    def _incomplete_source(self, tokens: int) -> str | None:
        named = zip(self.corpus.source_names, self.rows, self._row_counts(tokens), strict=True)
        for name, rows, count in named:
            # one row more: the last row is not final while others may follow
            if not self.corpus.manifest.sources[name].complete and len(rows) <= count:
                return name
        return None

    def evaluate(
        self, model: GPT, tokens: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> EvalResult:
        """Return the loss on all held-out tokens, or on about `tokens`, by the sources' weights.

        A budget takes the first rows of each source, so they are the same for every evaluation
        and exist while the rest is still being prepared. Raises StopRequestedError where
        `should_stop` returns True on any rank.
        """
        if tokens is None and not self.corpus.manifest.complete:
            self.corpus.refresh()
            self._read_rows()
        counts = [None for _ in self.rows] if tokens is None else self._row_counts(tokens)
        sum_batch = partial(sum_batch_loss, self.token_bytes, model)
        padding = torch.zeros(1, self.length, dtype=torch.long)
        empty = Batch(padding, torch.full_like(padding, IGNORE_INDEX), None)
        sums = {}
        with eval_mode(model):
            named = zip(self.corpus.source_names, self.rows, counts, strict=True)
            for name, all_rows, count in named:
                if rows := all_rows[:count]:
                    pairs = iter_heldout_batches(rows, self.length, self.batch_size)
                    batches = (Batch(x, y, None) for x, y in pairs)
                    num_batches = -(-len(rows) // self.batch_size)
                    sums[name] = sum_over_ranks(
                        sum_batch, batches, num_batches, empty, self.world, should_stop
                    )
        return bits_per_byte_result(sums)


class HeldoutExamples:
    """The held-out examples of each category; every evaluation covers all of them."""

    def __init__(
        self,
        rows_by_category: Mapping[str, Any],
        batch_size: int,
        world: DistContext,
        sum_batch: Callable[[GPT, Any], Tensor],
        summarize: Callable[[dict[str, list[float]]], EvalResult],
    ) -> None:
        self.rows_by_category = dict(sorted(rows_by_category.items()))
        self.batch_size, self.world = batch_size, world
        self.sum_batch, self.summarize = sum_batch, summarize
        self.is_empty = not rows_by_category

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
        return self.summarize(sums)


def bits_per_byte_result(sums: dict[str, list[float]]) -> EvalResult:
    """Return bits per byte in all and of each source, from nats, bytes, and tokens."""
    nats, num_bytes, _ = (sum(column) for column in zip(*sums.values(), strict=True))
    bits_per_byte = nats / math.log(2) / num_bytes
    sources = {name: round(nats / math.log(2) / size, 5) for name, (nats, size, _) in sums.items()}
    metrics = {"bits_per_byte": round(bits_per_byte, 5), "sources": sources}
    return EvalResult(bits_per_byte, metrics, sums)


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
