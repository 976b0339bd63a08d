"""The evaluations of a run: when they are due, and how an interrupted one is repeated.

Held-out data is evaluated every `eval_every` steps, tasks every `eval_tasks_every`, and both at the
end. A run that starts from a base evaluates the base first. An interrupted evaluation is pending:
the checkpoint records it, and it runs before the run resumes, so that the log has the same metrics
as that of an uninterrupted run.
"""

from typing import Any

from gnano.train.heldout_loss import HeldoutExamples, HeldoutSet, TaskEvaluator
from gnano.train.train_step import TrainState
from gnano.utils.stop_request import SignalHandler, StopRequestedError


class Evaluator:
    """Evaluates a run's model on its held-out data and tasks, and remembers the best result."""

    def __init__(
        self,
        heldout: HeldoutSet | HeldoutExamples,
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

    @property
    def should_stop_early(self) -> bool:
        """Return whether `early_stopping_patience` evaluations brought no new best."""
        return 0 < self.config.early_stopping_patience <= self.evals_since_best

    def is_due(self, step: int) -> bool:
        """Return whether an evaluation is due after this step."""
        return self._is_heldout_due(step) or self._is_task_eval_due(step)

    def evaluate(self, step: int) -> dict[str, Any]:
        """Run the evaluations that are due after a step, and return their metrics.

        Where a stop signal interrupts them the result is empty, and `is_pending` is set.
        """
        state, should_stop = self.train_state, self.signals.should_stop
        budget = None if step == self.config.steps else self.config.eval_tokens
        metrics: dict[str, Any] = {}
        loss = None
        try:
            if self.heldout and self._is_heldout_due(step):
                loss = self.heldout.evaluate(state.model, budget, should_stop)
                metrics["heldout"] = loss.to_metrics()
            if self.task_evaluator and self._is_task_eval_due(step):
                metrics["tasks"] = self.task_evaluator(state.model, state.world, should_stop)
        except StopRequestedError:
            self.is_pending = True
            return {}
        self.is_pending = False
        # the last evaluation covers everything; it compares only if the earlier ones did too
        if loss and (budget is not None or self.heldout.is_covered_by(self.config.eval_tokens)):
            self._update_best(step, loss.objective)
        return metrics

    def run_pending(self, step: int) -> dict[str, Any]:
        """Run the evaluation that is pending, or that of the base, and return its row, or {}."""
        if not self.is_pending and (step or not self.config.init_from):
            return {}
        metrics = self.evaluate(step)
        if self.is_pending:
            return {}
        return {"step": step, **({"final": True} if step == self.config.steps else {}), **metrics}

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the state for the checkpoint after this step."""
        latest_step, loss = self.latest_loss
        return {
            "heldout": loss if latest_step == step else None,
            "eval_pending": self.is_pending,
            "best_heldout": self.best_loss,
            "evals_since_best": self.evals_since_best,
        }

    def _is_heldout_due(self, step: int) -> bool:
        return step in (0, self.config.steps) or is_multiple_of(step, self.config.eval_every)

    def _is_task_eval_due(self, step: int) -> bool:
        return self.task_evaluator is not None and (
            step in (0, self.config.steps) or is_multiple_of(step, self.config.eval_tasks_every)
        )

    def _update_best(self, step: int, loss: float) -> None:
        self.latest_loss = step, loss
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.evals_since_best = loss, 0
        else:
            self.evals_since_best += 1


def is_multiple_of(step: int, interval: int) -> bool:
    """Return whether a step is a multiple of an interval; 0 means never."""
    return interval > 0 and step % interval == 0
