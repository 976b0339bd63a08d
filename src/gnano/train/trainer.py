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

from gnano.checkpoint.async_writer import AsyncCheckpointWriter
from gnano.checkpoint.format import CHECKPOINTS_DIR, CheckpointAssets
from gnano.config.recipe import Recipe
from gnano.train.data_loader import DataWaiter, Notify, PrefetchLoader
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import Evaluator, is_multiple_of
from gnano.train.heldout_loss import TaskEvaluatorFactory
from gnano.train.logging.metrics_logger import AsyncMetricReader, MetricsCallback, MetricsLogger
from gnano.train.logging.profiler import StepProfiler
from gnano.train.resolve import resolve_recipe, resolve_run_device
from gnano.train.run_lock import run_lock
from gnano.train.stability import StabilityMonitor
from gnano.train.tasks.build_task import build_task
from gnano.train.tasks.training_task import TrainingTask
from gnano.train.train_step import TrainState
from gnano.utils.jsonl_log import EventLog
from gnano.utils.platform_support import set_num_threads
from gnano.utils.stop_request import SignalHandler, StopRequestedError
from gnano.utils.streams import check_output_path


@dataclass(frozen=True)
class RunResult:
    run: Path
    checkpoint: Path
    step: int  # steps done
    total_steps: int  # steps in all
    start_step: int  # steps that were done when this call began
    stopped_by: signal.Signals | None  # the signal that ended it before it was finished
    is_main: bool  # is this the rank that speaks for all?

    @property
    def is_finished(self) -> bool:
        return self.stopped_by is None


def ignore_message(text: str, waiting: bool = False) -> None:
    """Says nothing."""


def train(
    recipe: Recipe,
    run: Path,
    on_metrics: MetricsCallback = lambda _: None,
    notify: Notify = ignore_message,
    allowed: Sequence[str] = (),
    build_task_evaluator: TaskEvaluatorFactory | None = None,
) -> RunResult:
    """Run the recipe in the folder `run`, or go on with it; returns when done or stopped.

    Where a launcher has started several ranks, each calls this, and the first alone writes,
    watches and says. `allow` names values of the recipe that may differ from those that the run
    was begun with; `exam` is who asks its `train.eval_tasks`. Raises ValueError for what does not fit
    together, before anything is computed.
    """
    check_output_path(run, "--out", [*recipe.input_paths], allowed_kind="run")
    with (
        DistContext.init(
            resolve_run_device(recipe, run), recipe.train.stability.stall_timeout
        ) as world,
        SignalHandler(world.world_size > 1) as stop,
        run_lock(run, world),
        EventLog(run, world.is_main) as events,
    ):
        notify = notify if world.is_main else ignore_message
        lessons = build_task(recipe, run, world, notify)
        recipe = world.run_on_main(partial(resolve_recipe, recipe, run, lessons, world, allowed))
        set_num_threads(recipe.train.threads)
        course = Trainer(recipe, run, lessons, world, stop, events, notify, build_task_evaluator)
        if not course.is_finished:
            course.fit(on_metrics)
        return course.result()


@contextmanager
def pause_gc() -> Iterator[None]:
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


class Trainer:
    """A run on its way: what the loop works with, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        task: TrainingTask,
        world: DistContext,
        signals: SignalHandler,
        event_log: EventLog,
        notify: Notify,
        build_task_evaluator: TaskEvaluatorFactory | None,
    ) -> None:
        self.recipe, self.run, self.world, self.signals = recipe, run, world, signals
        self.event_log, self.notify = event_log, notify
        settings, base = recipe.train, task.base
        beside = CheckpointAssets(
            recipe.model,
            task.tokenizer,
            task.chat_template,
            str(base.folder) if base else "",
            settings.lora,
        )
        if world.is_main:
            (run / CHECKPOINTS_DIR).mkdir(exist_ok=True)
        self.checkpoint_writer = AsyncCheckpointWriter(run, settings, beside, event_log.log, notify)
        if settings.eval_tasks and build_task_evaluator is None:
            raise ValueError(
                "train.eval_tasks needs an evaluator: train(…, build_task_evaluator=…)."
            )
        with signals.exit_immediately(True, notify):
            task.prepare(recipe, run, world, notify)
            tasks = (
                build_task_evaluator(recipe, task.tokenizer, world)
                if build_task_evaluator and settings.eval_tasks
                else None
            )
        self.train_state = TrainState(
            recipe, run, world, self.checkpoint_writer.report_damaged, base
        )
        self.checkpoint = self.train_state.checkpoint  # the newest, once the loop has ended
        self.step = self.start_step = self.train_state.completed_steps
        # the step whose checkpoint is written or being written
        self.saved_step = self.step if self.checkpoint else None
        known = self.train_state.loaded_state
        self.stability = StabilityMonitor(
            settings.stability, settings.schedule.peak, known.get("guard", {})
        )
        self.data_loader = PrefetchLoader(task.dataset, world, settings, self.stability.data_index)
        self.data_waiter = DataWaiter(world, signals, notify, task.is_growing)
        self.evaluator = Evaluator(
            task.build_heldout(recipe, world), tasks, self.train_state, signals
        )
        self.metrics_reader = AsyncMetricReader(
            settings, world.device, self.step, known.get("seconds", 0.0)
        )
        self.start_messages = task.describe()
        if self.train_state.fp8_layers:
            self.start_messages.append(
                f"FP8: {len(self.train_state.fp8_layers)} matrices of the blocks; the rest bf16"
            )

    @property
    def is_finished(self) -> bool:
        """Is there nothing left to do, or to measure?"""
        return self.checkpoint is not None and self._has_all_steps and not self.evaluator.is_pending

    @property
    def _has_all_steps(self) -> bool:
        return self.step >= self.recipe.train.steps or self.evaluator.should_stop_early

    def fit(self, on_metrics: MetricsCallback) -> None:
        """The loop, between a start and a checkpoint at its end."""
        settings, world, readings, guard = (
            self.recipe.train,
            self.world,
            self.metrics_reader,
            self.stability,
        )
        world.run_on_main(
            partial(self.checkpoint_writer.check_disk_space, self.train_state.checkpoint_bytes)
        )
        window = StepProfiler(
            self.run, settings.profile_start, settings.profile_steps, world.rank, self.notify
        )
        journal = MetricsLogger(self.recipe, self.run, world, on_metrics, self.notify)
        self.event_log.log_start(self.step, settings.steps, world.world_size)
        with self.checkpoint_writer, journal, pause_gc(), window:
            self.data_waiter.wait_until_available(
                partial(self.evaluator.heldout.missing, settings.eval_tokens)
            )
            for text in self.start_messages:
                self.notify(text)
            if self.evaluator.run_pending(journal):
                self.saved_step = None  # its checkpoint says that it was owed
            compiling = settings.compile == "yes"  # in the first step
            readings.reset_timer()
            while not (self._has_all_steps or readings.stop_requested or self.evaluator.is_pending):
                world.set_phase(f"reading the data of step {self.step + 1:,}")
                if not self.data_waiter.wait_until_available(
                    partial(self.data_loader.missing, self.step)
                ):
                    break
                micros = self.data_loader.next_micro_batches(self.step)
                world.set_phase(f"step {self.step + 1:,}")
                window.step(self.step + 1)
                try:
                    with self.signals.exit_immediately(compiling, self.notify):
                        readings.push(
                            self.train_state.train_step(micros, self.step, self.signals.should_stop)
                        )
                except StopRequestedError:
                    break
                self.step, compiling = self.step + 1, False
                last = self.step == settings.steps
                if not last:
                    self.data_loader.prefetch(self.step)  # while the device computes

                measure = self.evaluator.is_due(self.step)
                save = not last and is_multiple_of(self.step, settings.save_every)
                for row in readings.read_rows(drain=measure or save):
                    guard.observe(row)
                    if measure and row["step"] == self.step and not guard.needs_rollback:
                        self.evaluator.evaluate(row)
                        row |= {"final": True} if self.evaluator.should_stop_early else {}
                    journal.log(row)
                    if guard.needs_rollback:
                        break
                self.checkpoint_writer.poll()
                if guard.needs_rollback:
                    self._roll_back(row["step"])
                elif save:
                    self._save()
                if measure or save:
                    gc.collect()
                    readings.reset_timer()
            for row in readings.read_rows(drain=True):
                guard.observe(row)
                journal.log(row)
            if self._has_all_steps and (told := guard.final_message(self.step)):
                self.notify(told)
            self.checkpoint = self._save_final()
        self.event_log.log_end(self.step, self._stop_signal())

    def result(self) -> RunResult:
        assert self.checkpoint is not None
        return RunResult(
            run=self.run,
            checkpoint=self.checkpoint,
            step=self.step,
            total_steps=self.recipe.train.steps,
            start_step=self.start_step,
            stopped_by=self._stop_signal(),
            is_main=self.world.is_main,
        )

    def _save(self) -> None:
        """Start writing the checkpoint of this step."""
        self.world.set_phase("saving")
        self.train_state.save(
            self.step, self._state_dict(), self.checkpoint_writer if self.world.is_main else None
        )
        self.saved_step = self.step

    def _save_final(self) -> Path:
        """Write the checkpoint of the step that the run ends on; returns its folder."""
        if self.saved_step != self.step:
            self._save()
        self.world.set_phase("waiting until the checkpoint is written", math.inf)

        def stopped_at() -> float | None:
            return self.signals.received_at if self.signals.received_signal else None

        self.world.run_on_main(partial(self.checkpoint_writer.wait_until_saved, stopped_at))
        return self.run / CHECKPOINTS_DIR / f"step-{self.step:08}"

    def _roll_back(self, step: int) -> None:
        """Restore the last good checkpoint, to skip the data of the steps up to `step` later.

        Raises ValueError where there is none, or where that was done too often.
        """
        self.world.set_phase("going back to the last good checkpoint")
        trainee, first = self.train_state, step - self.stability.consecutive_skips
        start, end = (
            self.data_loader.sample_range(first).start,
            self.data_loader.sample_range(step - 1).stop,
        )
        self.checkpoint_writer.wait_until_idle()
        possible = trainee.restore(lambda state: not state.get("guard", {}).get("skipped"))
        self.stability.skip_data(step, possible)
        self.event_log.log(
            "rolled back", step=step, to=trainee.completed_steps, samples=[start, end - 1]
        )
        self.notify(
            f"Steps {first + 1:,} to {step:,} were all skipped: back to step {trainee.completed_steps:,}, and "
            f"then past their samples {start:,} to {end - 1:,} (gnano data show)."
        )
        self.step = trainee.completed_steps
        self.saved_step = None  # the same step again, but it leads elsewhere
        self.metrics_reader.rewind(self.step)

    def _state_dict(self) -> dict[str, Any]:
        """All that is to be remembered beside tensors."""
        now = {"seconds": self.metrics_reader.elapsed_seconds, "guard": self.stability.state_dict()}
        return {**now, **self.evaluator.state_dict(self.step)}

    def _stop_signal(self) -> signal.Signals | None:
        if self.is_finished:
            return None
        return self.signals.received_signal or signal.SIGTERM  # which was sent to another rank
