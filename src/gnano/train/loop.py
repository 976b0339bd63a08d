"""The one loop: batches in, checkpoints out.

    sample numbers ─▶ micro-batches ─▶ step ─▶ figures, read a step late on a GPU
                                        │
          checkpoint, held-out loss ◀───┘

Everything a step needs follows from its number: the samples, the learning rate, the draws of
dropout. So a run that was killed continues from its last checkpoint and gives the same weights,
bit for bit, and any number of ranks takes the same samples in the same order.
"""

import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gnano.data import Batches, Corpus
from gnano.train.feed import Feed
from gnano.train.guard import Guard
from gnano.train.heldout import Heldout
from gnano.train.quiet import NoGarbage
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.settle import device_of, settle
from gnano.train.stopping import StopRequest
from gnano.train.trainee import Trainee
from gnano.train.waiting import Say, Waiting
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
    stopped_by: signal.Signals | None  # the signal that ended it early
    first: bool  # is this the rank that speaks for all?

    @property
    def finished(self) -> bool:
        return self.step == self.steps


def silent(text: str, waiting: bool = False) -> None:
    """Says nothing."""


def train(recipe: Recipe, run: Path, watch: Watch = lambda _: None, say: Say = silent) -> RunResult:
    """Run the recipe in the folder `run`, or go on with it; returns when done or stopped.

    Where a launcher has started several ranks, each calls this, and the first alone writes,
    watches and says. Raises ValueError for what does not fit together, before anything is
    computed.
    """
    with World.join(device_of(recipe, run)) as world, StopRequest(world.size > 1) as stop:
        say = say if world.first else silent
        corpus = Corpus(Path(recipe.data.folder))
        recipe = world.by_first(partial(settle, recipe, run, corpus, world))
        settings, data, length = recipe.train, recipe.data, recipe.model.block_size
        rows = Batches(corpus, data.weights, data.seed, length, data.packing, data.inside_documents)
        feed = Feed(rows, world, settings)
        heldout = Heldout(corpus, data.weights, length, settings.micro_batch, world)
        trainee = Trainee(recipe, run, world)
        step = trainee.done
        result = partial(RunResult, run, steps=settings.steps, began=step, first=world.first)
        if trainee.checkpoint and step >= settings.steps:
            return result(trainee.checkpoint, step, stopped_by=None)

        readings = Readings(settings, world.device, step, trainee.seconds)
        guard = Guard(settings.guard, settings.schedule.peak)
        waiting = Waiting(world, stop, say, corpus)
        window = ProfileWindow(run, settings.profile_at, settings.profile_steps, world.rank, say)
        with Journal(recipe, run, world, watch, say) as journal, NoGarbage() as garbage, window:
            waiting.for_(partial(heldout.lacking, settings.eval_tokens))
            say(f"{corpus.folder}: {rows.waste()}")
            if trainee.fp8:
                say(f"FP8: {len(trainee.fp8)} matrices of the blocks; all else in bf16")
            readings.resume()
            while step < settings.steps and not readings.stopping:
                if not waiting.for_(partial(feed.lacking, step)):
                    break
                world.doing(f"step {step + 1:,}")
                window(step + 1)
                readings.put(trainee.learn(feed.take(step), step, stop.received is not None))
                step += 1
                last = step == settings.steps
                if not last:
                    feed.prepare(step)  # while the device computes

                measure = last or _due(step, settings.eval_every)
                save = not last and _due(step, settings.save_every)
                for row in readings.take(all_of_them=measure or save):
                    if measure and heldout and row["step"] == step:
                        world.doing("measuring the held-out loss")
                        part = None if last else settings.eval_tokens
                        row["heldout"] = heldout.loss(trainee.model, part).as_dict()
                    journal.write(row)
                    guard(row)
                if save:
                    world.doing("saving")
                    trainee.save(step, readings.seconds, corpus.tokenizer)
                if measure or save:
                    garbage.collect()
                    readings.resume()
            for row in readings.take(all_of_them=True):
                journal.write(row)
            world.doing("saving")
            checkpoint = trainee.save(step, readings.seconds, corpus.tokenizer)
    stopped_by = stop.received or (signal.SIGTERM if readings.stopping else None)
    return result(checkpoint, step, stopped_by=stopped_by)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
