"""What the loop asks of its checkpoints: save, finish, go back. All ranks ask, the first writes."""

import math
import shutil
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gnano.train.feed import Feed
from gnano.train.guard import Guard
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.checkpoint import Beside
from gnano.train.saving.folders import FOLDER, checkpoints
from gnano.train.saving.saver import Saver
from gnano.train.stopping import StopRequest
from gnano.train.trainee import Trainee
from gnano.train.waiting import Say
from gnano.train.watching.events import Events


class Keeping:
    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: World,
        beside: Beside,
        events: Events,
        say: Say,
    ) -> None:
        self.settings, self.run, self.world = recipe.train, run, world
        self.events, self.say = events, say
        self.saver: Saver | None = None
        if world.first:
            (run / FOLDER).mkdir(exist_ok=True)
            self.saver = Saver(run, recipe.train, beside, events, say)
        self.at: int | None = None  # the step whose checkpoint is written or being written

    def damaged(self, aside: Path, reason: str) -> None:
        """A checkpoint had to be passed over."""
        self.events("damaged", folder=aside.name, reason=reason)
        self.say(f"{reason} The run goes on from the checkpoint before it; {aside} is left to you.")

    def foresee(self, size: int) -> None:
        """Is there room for checkpoints of so many bytes? Raises ValueError if not for one."""
        self.world.by_first(partial(self._foresee, size))

    def _foresee(self, size: int) -> None:
        free = shutil.disk_usage(self.run / FOLDER).free
        # the newest ones, the best, and the next, which is there before an old one goes
        most = self.settings.keep + self.settings.keep_best + 1
        still = max(most - len(checkpoints(self.run)), 1)
        room = f"{free / 1e9:.3g} GB are free in {self.run}, a checkpoint takes {size / 1e9:.3g} GB"
        if free < size:
            raise ValueError(f"{room}: free some space, or choose another folder (--out).")
        if free < size * still:
            self.say(f"{room}, and {still} more are kept (train.keep): that will not fit.")

    def save(self, trainee: Trainee, step: int, state: dict[str, Any]) -> None:
        """Begin to write the checkpoint after so many steps."""
        self.world.doing("saving")
        trainee.save(step, state, self.saver)
        self.at = step

    def look(self) -> None:
        """Tell what became of it."""
        if self.saver:
            self.saver.look()

    def finish(self, trainee: Trainee, step: int, state: dict[str, Any], stop: StopRequest) -> Path:
        """The checkpoint of the step that the run ends on, once it is written."""
        if self.at != step:
            self.save(trainee, step, state)
        self.world.doing("waiting until the checkpoint is written", math.inf)
        if self.saver:
            self.world.by_first(partial(self.saver.finish, stop))
        else:
            self.world.by_first(lambda: None)
        return self.run / FOLDER / f"step-{step:08}"

    def go_back(self, trainee: Trainee, guard: Guard, feed: Feed, step: int) -> int:
        """To the last good checkpoint, and later around the data of the steps skipped last.

        `step` is the last of them. Returns the step that is to follow; raises ValueError where
        going back is not possible or has not helped.
        """
        self.world.doing("going back to the last good checkpoint")
        first = step - guard.skipped
        samples = range(feed.samples(first).start, feed.samples(step - 1).stop)
        if self.saver:
            self.saver.ready()
        possible = trainee.restore(lambda state: not state.get("guard", {}).get("skipped"))
        guard.go_around(step, possible)
        facts = {"to": trainee.done, "samples": [samples.start, samples.stop - 1]}
        self.events("rolled back", step=step, **facts)
        self.say(
            f"Steps {first + 1:,} to {step:,} were all skipped: back to step {trainee.done:,}, and "
            f"then past their samples {samples.start:,} to {samples.stop - 1:,} (gnano data show)."
        )
        self.at = None  # the same step again, but it leads elsewhere
        return trainee.done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """After a failure of the training a write is brought to its end, unless it cannot be."""
        if self.saver and isinstance(error, Exception):
            self.saver.ready()
        elif self.saver and error is not None:
            self.saver.leave()
