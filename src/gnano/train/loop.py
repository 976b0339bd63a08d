"""The one loop: batches in, checkpoints out.

    sample numbers ─▶ micro-batches ─▶ step ─▶ figures, read a step late on a GPU
                                        │
          checkpoint, held-out loss ◀───┘

Everything a step needs follows from its number: the samples, the learning rate, the draws of
dropout. So a run that was killed continues from its last checkpoint and gives the same weights,
bit for bit, and any number of ranks takes the same samples in the same order.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gnano.data import Batches, Corpus
from gnano.train.alone import Alone
from gnano.train.feed import Feed
from gnano.train.guard import Guard
from gnano.train.heldout import Heldout
from gnano.train.measuring import Measuring
from gnano.train.quiet import NoGarbage
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.keeping import Keeping
from gnano.train.settle import device_of, settle
from gnano.train.stopping import CutShortError, StopRequest
from gnano.train.trainee import Trainee
from gnano.train.waiting import Say, Waiting
from gnano.train.watching.events import Events
from gnano.train.watching.journal import Journal, Watch
from gnano.train.watching.profiling import ProfileWindow
from gnano.train.watching.readings import Readings


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
) -> RunResult:
    """Run the recipe in the folder `run`, or go on with it; returns when done or stopped.

    Where a launcher has started several ranks, each calls this, and the first alone writes,
    watches and says. `allow` names values of the recipe that may differ from those that the run
    was begun with. Raises ValueError for what does not fit together, before anything is computed.
    """
    with (
        World.join(device_of(recipe, run), recipe.train.guard.stall) as world,
        StopRequest(world.size > 1) as stop,
        Alone(run, world),
        Events(run, world.first) as events,
    ):
        say = say if world.first else silent
        corpus = Corpus(Path(recipe.data.folder))
        recipe = world.by_first(partial(settle, recipe, run, corpus, world, allow))
        settings, data, length = recipe.train, recipe.data, recipe.model.block_size
        rows = Batches(corpus, data.weights, data.seed, length, data.packing, data.inside_documents)
        keeping = Keeping(recipe, run, world, corpus.tokenizer, events, say)
        trainee = Trainee(recipe, run, world, keeping.damaged)
        step = trainee.done
        keeping.at = step if trainee.checkpoint else None
        heldout = Heldout(corpus, data.weights, length, settings.micro_batch, world)
        measuring = Measuring(heldout, trainee, stop)
        result = partial(RunResult, run, steps=settings.steps, began=step, first=world.first)
        if trainee.checkpoint and step >= settings.steps and not measuring.owed:
            return result(trainee.checkpoint, step, stopped_by=None)

        keeping.foresee(trainee.bytes)
        guard = Guard(settings.guard, settings.schedule.peak, trainee.state.get("guard", {}))
        feed = Feed(rows, world, settings, guard.data_step)
        readings = Readings(settings, world.device, step, trainee.state.get("seconds", 0.0))
        waiting = Waiting(world, stop, say, corpus)
        window = ProfileWindow(run, settings.profile_at, settings.profile_steps, world.rank, say)
        journal = Journal(recipe, run, world, watch, say)
        compiling = settings.compile == "yes"  # in the first step
        events.started(step, settings.steps, world.size)

        def state() -> dict[str, Any]:
            """All that is to be remembered beside tensors."""
            now = {"seconds": readings.seconds, "guard": guard.state()}
            return {**now, **measuring.state(step)}

        with keeping, journal, NoGarbage() as garbage, window:
            waiting.for_(partial(heldout.lacking, settings.eval_tokens))
            say(f"{corpus.folder}: {rows.waste()}")
            if trainee.fp8:
                say(f"FP8: {len(trainee.fp8)} matrices of the blocks; all else in bf16")
            if measuring.make_up(journal):
                keeping.at = None  # its checkpoint says that it was owed
            readings.resume()
            while step < settings.steps and not (readings.stopping or measuring.owed):
                world.doing(f"reading the data of step {step + 1:,}")
                if not waiting.for_(partial(feed.lacking, step)):
                    break
                micros = feed.take(step)
                world.doing(f"step {step + 1:,}")
                window(step + 1)
                try:
                    with stop.at_once(compiling, say):
                        readings.put(trainee.learn(micros, step, stop))
                except CutShortError:
                    break
                step, compiling = step + 1, False
                last = step == settings.steps
                if not last:
                    feed.prepare(step)  # while the device computes

                measure = last or _due(step, settings.eval_every)
                save = not last and _due(step, settings.save_every)
                for row in readings.take(all_of_them=measure or save):
                    guard(row)
                    if measure and row["step"] == step and not guard.lost:
                        measuring(row)
                    journal.write(row)
                    if guard.lost:
                        step = keeping.go_back(trainee, guard, feed, row["step"])
                        readings.restart(step)
                        measure = save = False
                        break
                keeping.look()
                if save:
                    keeping.save(trainee, step, state())
                if measure or save:
                    garbage.collect()
                    readings.resume()
            for row in readings.take(all_of_them=True):
                guard(row)
                journal.write(row)
            checkpoint = keeping.finish(trainee, step, state(), stop)
        done = step == settings.steps and not measuring.owed
        stopped_by = None if done else stop.received or signal.SIGTERM  # sent to another rank
        events.ended(step, stopped_by)
    return result(checkpoint, step, stopped_by=stopped_by)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
