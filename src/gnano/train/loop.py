"""The training loop: batches in, checkpoints out.

    sample numbers ─▶ micro-batches ─▶ step ─▶ figures, read a step late on a GPU
                                        │
          checkpoint, held-out loss ◀───┘

Everything a step needs follows from its number: the samples, the learning rate, the draws of
dropout. So a run that was killed continues from its last checkpoint and gives the same weights,
on a CPU bit for bit, and any number of ranks takes the same samples in the same order.
"""

import gc
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gnano.train.alone import lock_run
from gnano.train.feed import Feed
from gnano.train.guard import Guard
from gnano.train.heldout import OpenExam
from gnano.train.lessons.lessons import Lessons, open_lessons
from gnano.train.measuring import Measuring, due
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.checkpoint import Beside
from gnano.train.saving.folders import FOLDER
from gnano.train.saving.saver import Saver
from gnano.train.settle import device_of, settle
from gnano.train.stopping import CutShortError, StopRequest
from gnano.train.trainee import Trainee
from gnano.train.waiting import Say, Waiting
from gnano.train.watching.events import Events
from gnano.train.watching.journal import Journal, Watch
from gnano.train.watching.profiling import ProfileWindow
from gnano.train.watching.readings import Readings
from gnano.utils.openmp import use_threads
from gnano.utils.output import check_output


@dataclass(frozen=True)
class RunResult:
    run: Path
    checkpoint: Path
    step: int  # steps done
    steps: int  # steps in all
    began: int  # steps that were done when this call began
    stopped_by: signal.Signals | None  # the signal that ended it before it was finished
    first: bool  # is this the rank that speaks for all?

    @property
    def finished(self) -> bool:
        return self.stopped_by is None


def silent(text: str, waiting: bool = False) -> None:
    """Says nothing."""


def train(
    recipe: Recipe,
    run: Path,
    watch: Watch = lambda _: None,
    say: Say = silent,
    allow: Sequence[str] = (),
    exam: OpenExam | None = None,
) -> RunResult:
    """Run the recipe in the folder `run`, or go on with it; returns when done or stopped.

    Where a launcher has started several ranks, each calls this, and the first alone writes,
    watches and says. `allow` names values of the recipe that may differ from those that the run
    was begun with; `exam` is who asks its `train.tasks`. Raises ValueError for what does not fit
    together, before anything is computed.
    """
    check_output(run, "--out", [*recipe.inputs], own="run")
    with (
        World.join(device_of(recipe, run), recipe.train.guard.stall) as world,
        StopRequest(world.size > 1) as stop,
        lock_run(run, world),
        Events(run, world.first) as events,
    ):
        say = say if world.first else silent
        lessons = open_lessons(recipe, run, world, say)
        recipe = world.by_first(partial(settle, recipe, run, lessons, world, allow))
        use_threads(recipe.train.threads)
        course = Course(recipe, run, lessons, world, stop, events, say, exam)
        if not course.over:
            course.take(watch)
        return course.result()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Run Python's garbage collector only where it is called, at the same steps on every rank.

    Otherwise it stops one rank for some milliseconds at a moment of its own, and all others wait
    for it in the next exchange.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


class Course:
    """A run on its way: what the loop works with, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        lessons: Lessons,
        world: World,
        stop: StopRequest,
        events: Events,
        say: Say,
        exam: OpenExam | None,
    ) -> None:
        self.recipe, self.run, self.world, self.stop = recipe, run, world, stop
        self.events, self.say = events, say
        settings, base = recipe.train, lessons.base
        beside = Beside(
            recipe.model,
            lessons.tokenizer,
            lessons.template,
            str(base.folder) if base else "",
            settings.lora,
        )
        if world.first:
            (run / FOLDER).mkdir(exist_ok=True)
        self.saver = Saver(run, settings, beside, events.write, say)
        if settings.tasks and exam is None:
            raise ValueError(
                "train.tasks needs who asks them: train(…, exam=gnano.evals.open_exam)."
            )
        with stop.at_once(True, say):
            lessons.prepare(recipe, run, world, say)
            tasks = exam(recipe, lessons.tokenizer, world) if exam and settings.tasks else None
        self.trainee = Trainee(recipe, run, world, self.saver.damaged, base)
        self.checkpoint = self.trainee.checkpoint  # the newest, once the loop has ended
        self.step = self.began = self.trainee.done
        # the step whose checkpoint is written or being written
        self.saved_step = self.step if self.checkpoint else None
        known = self.trainee.state
        self.guard = Guard(settings.guard, settings.schedule.peak, known.get("guard", {}))
        self.feed = Feed(lessons.rows, world, settings, self.guard.data_step)
        self.waiting = Waiting(world, stop, say, lessons.growing)
        self.measuring = Measuring(lessons.measure(recipe, world), tasks, self.trainee, stop)
        self.readings = Readings(settings, world.device, self.step, known.get("seconds", 0.0))
        self.about = lessons.about()
        if self.trainee.fp8:
            self.about.append(f"FP8: {len(self.trainee.fp8)} matrices of the blocks; the rest bf16")

    @property
    def over(self) -> bool:
        """Is there nothing left to do, or to measure?"""
        return self.checkpoint is not None and self._done and not self.measuring.owed

    @property
    def _done(self) -> bool:
        return self.step >= self.recipe.train.steps or self.measuring.enough

    def take(self, watch: Watch) -> None:
        """The loop, between a start and a checkpoint at its end."""
        settings, world, readings, guard = self.recipe.train, self.world, self.readings, self.guard
        world.by_first(partial(self.saver.foresee, self.trainee.bytes))
        window = ProfileWindow(
            self.run, settings.profile_at, settings.profile_steps, world.rank, self.say
        )
        journal = Journal(self.recipe, self.run, world, watch, self.say)
        self.events.started(self.step, settings.steps, world.size)
        with self.saver, journal, gc_paused(), window:
            self.waiting.for_(partial(self.measuring.heldout.lacking, settings.eval_tokens))
            for text in self.about:
                self.say(text)
            if self.measuring.make_up(journal):
                self.saved_step = None  # its checkpoint says that it was owed
            compiling = settings.compile == "yes"  # in the first step
            readings.resume()
            while not (self._done or readings.stopping or self.measuring.owed):
                world.doing(f"reading the data of step {self.step + 1:,}")
                if not self.waiting.for_(partial(self.feed.lacking, self.step)):
                    break
                micros = self.feed.take(self.step)
                world.doing(f"step {self.step + 1:,}")
                window.step(self.step + 1)
                try:
                    with self.stop.at_once(compiling, self.say):
                        readings.put(self.trainee.learn(micros, self.step, self.stop.requested))
                except CutShortError:
                    break
                self.step, compiling = self.step + 1, False
                last = self.step == settings.steps
                if not last:
                    self.feed.prepare(self.step)  # while the device computes

                measure = self.measuring.due(self.step)
                save = not last and due(self.step, settings.save_every)
                for row in readings.take(all_of_them=measure or save):
                    guard.observe(row)
                    if measure and row["step"] == self.step and not guard.lost:
                        self.measuring(row)
                        row |= {"final": True} if self.measuring.enough else {}
                    journal.write(row)
                    if guard.lost:
                        break
                self.saver.look()
                if guard.lost:
                    self._roll_back(row["step"])
                elif save:
                    self._save()
                if measure or save:
                    gc.collect()
                    readings.resume()
            for row in readings.take(all_of_them=True):
                guard.observe(row)
                journal.write(row)
            if self._done and (told := guard.told(self.step)):
                self.say(told)
            self.checkpoint = self._finish_saving()
        self.events.ended(self.step, self._stopped_by())

    def result(self) -> RunResult:
        assert self.checkpoint is not None
        return RunResult(
            run=self.run,
            checkpoint=self.checkpoint,
            step=self.step,
            steps=self.recipe.train.steps,
            began=self.began,
            stopped_by=self._stopped_by(),
            first=self.world.first,
        )

    def _save(self) -> None:
        """Start writing the checkpoint of this step."""
        self.world.doing("saving")
        self.trainee.save(self.step, self._state(), self.saver if self.world.first else None)
        self.saved_step = self.step

    def _finish_saving(self) -> Path:
        """Write the checkpoint of the step that the run ends on; returns its folder."""
        if self.saved_step != self.step:
            self._save()
        self.world.doing("waiting until the checkpoint is written", math.inf)

        def stopped_at() -> float | None:
            return self.stop.at if self.stop.received else None

        self.world.by_first(partial(self.saver.finish, stopped_at))
        return self.run / FOLDER / f"step-{self.step:08}"

    def _roll_back(self, step: int) -> None:
        """Restore the last good checkpoint, to skip the data of the steps up to `step` later.

        Raises ValueError where there is none, or where that was done too often.
        """
        self.world.doing("going back to the last good checkpoint")
        trainee, first = self.trainee, step - self.guard.skipped
        start, end = self.feed.samples(first).start, self.feed.samples(step - 1).stop
        self.saver.ready()
        possible = trainee.restore(lambda state: not state.get("guard", {}).get("skipped"))
        self.guard.go_around(step, possible)
        self.events.write("rolled back", step=step, to=trainee.done, samples=[start, end - 1])
        self.say(
            f"Steps {first + 1:,} to {step:,} were all skipped: back to step {trainee.done:,}, and "
            f"then past their samples {start:,} to {end - 1:,} (gnano data show)."
        )
        self.step = trainee.done
        self.saved_step = None  # the same step again, but it leads elsewhere
        self.readings.restart(self.step)

    def _state(self) -> dict[str, Any]:
        """All that is to be remembered beside tensors."""
        now = {"seconds": self.readings.seconds, "guard": self.guard.state()}
        return {**now, **self.measuring.state(self.step)}

    def _stopped_by(self) -> signal.Signals | None:
        if self.over:
            return None
        return self.stop.received or signal.SIGTERM  # which was sent to another rank
