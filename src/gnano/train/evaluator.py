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

from typing import Any

from gnano.train.heldout_loss import HeldoutSet, TaskEvaluator
from gnano.train.logging.metrics_logger import MetricsLogger
from gnano.train.tasks.training_task import HeldoutExamples
from gnano.train.train_step import TrainState
from gnano.utils.stop_request import SignalHandler, StopRequestedError


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
        except StopRequestedError:
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
