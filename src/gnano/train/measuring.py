"""When is the held-out loss taken, and what if the run is stopped meanwhile?

A measurement that is cut short is owed: the checkpoint says so, and it is made up for before
the run goes on, so that its log has the same figures as one that was never stopped.
"""

from typing import Any

from gnano.train.heldout import Heldout
from gnano.train.stopping import CutShortError, StopRequest
from gnano.train.trainee import Trainee
from gnano.train.watching.journal import Journal


class Measuring:
    def __init__(self, heldout: Heldout, trainee: Trainee, stop: StopRequest) -> None:
        self.heldout, self.trainee, self.stop = heldout, trainee, stop
        self.settings = trainee.recipe.train
        self.owed: bool = trainee.state.get("unmeasured", False)
        self.found: tuple[int, float] = (-1, 0.0)  # step, bits per byte

    def __call__(self, row: dict[str, Any]) -> None:
        """Measure after the step of this row, and add it."""
        if not self.heldout:
            return
        last = row["step"] == self.settings.steps
        part = None if last else self.settings.eval_tokens
        try:
            loss = self.heldout.loss(self.trainee.model, part, self.stop)
        except CutShortError:
            self.owed = True
            row.pop("final", None)
            return
        self.owed = False
        row["heldout"] = loss.as_dict()
        if part is not None:  # at the end it is over other text, and does not compare
            self.found = row["step"], loss.bits_per_byte

    def make_up(self, journal: Journal) -> bool:
        """For what is owed from an earlier part of the run; was anything?"""
        if not self.owed:
            return False
        step = self.trainee.done
        row = {"step": step, **({"final": True} if step == self.settings.steps else {})}
        self(row)
        if not self.owed:
            journal.add(**row)
        return not self.owed

    def state(self, step: int) -> dict[str, Any]:
        """For the checkpoint after this step."""
        at, bits = self.found
        return {"bits_per_byte": bits if at == step else None, "unmeasured": self.owed}
