"""The evaluations of a run: when they are due, and how an interrupted one is repeated.

Held-out text every so many steps, tasks every so many others, and both at the end. A run that
begins with a base measures it first. A measurement that is cut short is owed: the
checkpoint says so, and it is made up for before the run goes on, so that its log has the same
figures as one that was never stopped.
"""

from typing import Any

from gnano.train.heldout import Exam, Heldout
from gnano.train.lessons.lessons import HeldoutExamples
from gnano.train.stopping import CutShortError, StopRequest
from gnano.train.trainee import Trainee
from gnano.train.watching.journal import Journal


class Measuring:
    def __init__(
        self,
        heldout: Heldout | HeldoutExamples,
        exam: Exam | None,
        trainee: Trainee,
        stop: StopRequest,
    ) -> None:
        self.heldout, self.exam, self.trainee, self.stop = heldout, exam, trainee, stop
        self.settings = trainee.recipe.train
        known = trainee.state
        self.owed: bool = known.get("unmeasured", False)
        self.found: tuple[int, float] = (-1, 0.0)  # step, what it is compared by
        self.best: float | None = known.get("best")  # of those that compare
        self.stale: int = known.get("stale", 0)  # measurements since then

    @property
    def enough(self) -> bool:
        """Has the run been without a new best for as long as it may be?"""
        return 0 < self.settings.patience <= self.stale

    def due(self, step: int) -> bool:
        """Is anything to be measured after this step?"""
        return self._heldout_due(step) or self._exam_due(step)

    def __call__(self, row: dict[str, Any]) -> None:
        """Measure after the step of this row what is due, and add it."""
        model, step = self.trainee.model, row["step"]
        part = None if step == self.settings.steps else self.settings.eval_tokens
        found: dict[str, Any] = {}
        loss = None
        try:
            if self.heldout and self._heldout_due(step):
                loss = self.heldout.loss(model, part, self.stop.requested)
                found["heldout"] = loss.as_dict()
            if self.exam and self._exam_due(step):
                found["tasks"] = self.exam(model, self.trainee.world, self.stop.requested)
        except CutShortError:
            self.owed = True
            row.pop("final", None)
            return
        self.owed = False
        row |= found
        # at the end it is over all there is, and compares where the others were too
        if loss and (part is not None or self.heldout.covers(self.settings.eval_tokens)):
            self._compare(step, loss.value)

    def _heldout_due(self, step: int) -> bool:
        return step in (0, self.settings.steps) or due(step, self.settings.eval_every)

    def _exam_due(self, step: int) -> bool:
        ends = (0, self.settings.steps)
        return self.exam is not None and (step in ends or due(step, self.settings.tasks_every))

    def make_up(self, journal: Journal) -> bool:
        """For what is owed from an earlier part of the run, or by its base; was anything?"""
        step = self.trainee.done
        if not self.owed and (step or not self.settings.base):
            return False
        row = {"step": step, **({"final": True} if step == self.settings.steps else {})}
        self(row)
        if not self.owed:
            journal.add(**row)
        return not self.owed

    def state(self, step: int) -> dict[str, Any]:
        """For the checkpoint after this step."""
        at, value = self.found
        measured = {"heldout": value if at == step else None, "unmeasured": self.owed}
        return {**measured, "best": self.best, "stale": self.stale}

    def _compare(self, step: int, value: float) -> None:
        self.found = step, value
        if self.best is None or value < self.best:
            self.best, self.stale = value, 0
        else:
            self.stale += 1


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
