"""The training loop: a run's `Trainer`, and `train`, which runs a recipe in a folder.

    sample indices ─▶ micro-batches ─▶ step ─▶ metrics (on a GPU read one step late)
                                        │
        checkpoint, evaluation ◀────────┘

Everything that a step needs follows from its number: its samples, its learning rate, the random
numbers of dropout. So a killed run that resumes from its last checkpoint gives the same weights, on
a CPU bit for bit, and any number of ranks trains on the same samples in the same order.
"""

import gc
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from gnano.checkpoint.async_writer import AsyncCheckpointWriter
from gnano.checkpoint.format import CheckpointAssets
from gnano.checkpoint.run_checkpoints import CHECKPOINTS_DIR
from gnano.config.data_config import DataConfig
from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext, pause_gc
from gnano.train.distributed.flight_recorder import TRACE_DIR
from gnano.train.evaluator import Evaluator, TaskEvaluatorFactory
from gnano.train.lineage import find_base
from gnano.train.logging.metrics_logger import MetricsCallback, MetricsLogger
from gnano.train.logging.profiler import StepProfiler
from gnano.train.resolve import describe_slower_choices, resolve_recipe
from gnano.train.run_dir import RECIPE_FILE, has_started, read_run_metadata, run_lock
from gnano.train.stability import check_rollback, describe_last_skips
from gnano.train.train_step import PrefetchLoader, TrainState
from gnano.train.training_task import Notify, PretrainingTask, TrainingTask
from gnano.train.tuning_task import DPOTask, SFTTask
from gnano.utils.files import check_output_path
from gnano.utils.jsonl_log import EventLog
from gnano.utils.platform_support import resolve_device
from gnano.utils.stop_request import SignalHandler, StopRequestedError

POLL_INTERVAL = 1.0  # seconds between looks at data in preparation


@dataclass(frozen=True)
class RunResult:
    """The state of a run when `Trainer.fit` returns."""

    run: Path
    checkpoint: Path  # the newest
    step: int  # completed steps
    total_steps: int
    start_step: int  # steps that had been completed before this call
    stopped_by: signal.Signals | None  # the signal that stopped the run before its end
    is_main: bool  # whether this is rank 0, which reports for all ranks

    @property
    def is_finished(self) -> bool:
        """Return whether the run has reached its end."""
        return self.stopped_by is None


def ignore_message(text: str, waiting: bool = False) -> None:
    """Drop a message about the run."""


def train(
    recipe: Recipe,
    run: Path,
    on_metrics: MetricsCallback = lambda _: None,
    notify: Notify = ignore_message,
    allowed: Sequence[str] = (),
    build_task_evaluator: TaskEvaluatorFactory | None = None,
) -> RunResult:
    """Start or resume the recipe in the folder `run`, and return when it is finished or stopped.

    Where a launcher started several ranks, each of them calls this, and rank 0 writes and reports.
    `allowed` names values of the recipe that may differ from those that the run was started with;
    `build_task_evaluator` is for `train.eval_tasks`. Raises ValueError for conflicting settings.
    """
    check_output_path(run, "--out", [*recipe.input_paths], allowed_kind="run")
    device = recipe.train.device
    if device == "auto" and has_started(run):  # a run stays on its device
        device = read_run_metadata(run / RECIPE_FILE).recipe.train.device
    timeout, traces = recipe.train.stability.stall_timeout, run / TRACE_DIR
    with (
        DistContext.init(resolve_device(device), timeout, trace_folder=traces) as world,
        SignalHandler.listen(world.world_size > 1) as signals,
        run_lock(run, world),
        EventLog.of_run(run, world.is_main) as event_log,
    ):
        notify = notify if world.is_main else ignore_message
        task = build_task(recipe, run, world, notify)
        asked = recipe.train
        recipe = world.run_on_main(partial(resolve_recipe, recipe, run, task, world, allowed))
        for message in describe_slower_choices(asked, recipe, world.device):
            notify(message)
        if recipe.train.threads:  # 0 keeps PyTorch's default, one per core
            torch.set_num_threads(recipe.train.threads)
        trainer = Trainer(
            recipe, run, task, world, signals, event_log, on_metrics, notify, build_task_evaluator
        )
        return trainer.fit()


def build_task(recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> TrainingTask:
    """Open the data that the recipe trains on, and its base; raises ValueError or OSError."""
    path = recipe.train.init_from
    base = world.run_on_main(partial(find_base, path, run)) if path else None
    if isinstance(recipe.data, DataConfig):
        return PretrainingTask(recipe.data, base)
    task = DPOTask if recipe.data.kind == "preferences" else SFTTask
    return task(recipe, base, run, world, notify)


class Trainer:
    """Trains one run: its task, training state, checkpoints and logs, and the loop over them."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        task: TrainingTask,
        world: DistContext,
        signals: SignalHandler,
        event_log: EventLog,
        on_metrics: MetricsCallback,
        notify: Notify,
        build_task_evaluator: TaskEvaluatorFactory | None,
    ) -> None:
        self.recipe, self.run, self.world, self.signals = recipe, run, world, signals
        self.event_log, self.on_metrics, self.notify = event_log, on_metrics, notify
        config, base = recipe.train, task.base
        self.config = config
        if world.is_main:
            (run / CHECKPOINTS_DIR).mkdir(exist_ok=True)
        base_folder = str(base.folder) if base else ""
        assets = CheckpointAssets(
            recipe.model, task.tokenizer, task.chat_template, base_folder, config.lora
        )
        self.checkpoint_writer = AsyncCheckpointWriter(run, config, assets, event_log.log, notify)
        with signals.exit_immediately(True, notify):
            self.start_messages = task.load(recipe, run, world, notify)
            task_evaluator = None
            if config.eval_tasks:
                if build_task_evaluator is None:
                    raise ValueError("train.eval_tasks needs train(…, build_task_evaluator=…).")
                task_evaluator = build_task_evaluator(recipe, task.tokenizer, world)
        on_damaged = self.checkpoint_writer.report_damaged
        self.train_state = TrainState(recipe, run, world, on_damaged, base)
        self.checkpoint = self.train_state.checkpoint  # the newest, once `fit` has returned
        self.step = self.start_step = self.train_state.completed_steps
        # the step whose checkpoint is written or being written
        self.saved_step = self.step if self.checkpoint else None
        skipped = self.train_state.loaded_state.get("stability", {}).get("skipped_ranges", [])
        self.data_loader = PrefetchLoader(task.dataset, world, config, skipped)
        # data that is complete from the start needs no agreement between the ranks
        self.is_growing = bool(world.all_reduce_max(task.is_growing)[0])
        self.evaluator = Evaluator(task.heldout, task_evaluator, self.train_state, signals)
        if layers := self.train_state.fp8_layers:
            self.start_messages.append(f"FP8: {len(layers)} matrices of the blocks; the rest bf16")

    @property
    def _has_all_steps(self) -> bool:
        patience = self.config.early_stopping_patience  # evaluations without a new best; 0: no end
        stops_early = 0 < patience <= self.evaluator.evals_since_best
        return stops_early or self.step >= self.config.steps

    def fit(self) -> RunResult:
        """Train until the last step or a stop signal, and write the final checkpoint."""
        stopped_by = None
        if self.checkpoint is None or self.evaluator.is_pending or not self._has_all_steps:
            self._run()
            if self.evaluator.is_pending or not self._has_all_steps:
                stopped_by = self.signals.received_signal or signal.SIGTERM  # of another rank
            ended_by = {"signal": stopped_by.name} if stopped_by else {}
            self.event_log.log("stopped" if stopped_by else "finished", step=self.step, **ended_by)
        assert self.checkpoint is not None
        return RunResult(
            run=self.run,
            checkpoint=self.checkpoint,
            step=self.step,
            total_steps=self.config.steps,
            start_step=self.start_step,
            stopped_by=stopped_by,
            is_main=self.world.is_main,
        )

    def _run(self) -> None:
        config, world, writer = self.config, self.world, self.checkpoint_writer
        evaluator, loaded = self.evaluator, self.train_state.loaded_state
        world.run_on_main(partial(writer.check_disk_space, self.train_state.checkpoint_bytes))
        profiler = None
        if config.profile_start:
            profiler = StepProfiler(self.run, config, world.rank, self.notify)
        self.logger = MetricsLogger(
            self.recipe, self.run, world, self.on_metrics, self.notify, self.step, loaded
        )
        self.event_log.log("started", step=self.step, steps=config.steps, ranks=world.world_size)
        with (
            writer.end_write_on_error(),
            closing(self.logger),
            pause_gc(),
            closing(profiler) if profiler else nullcontext(),
        ):
            self._wait_for_data(evaluator.heldout.missing)
            for text in self.start_messages:
                self.notify(text)
            # the evaluation that was interrupted, or that of the base
            if evaluator.is_pending or (self.step == 0 and config.init_from):
                results = evaluator.evaluate(self.step)
                if not evaluator.is_pending:
                    final = {"final": True} if self.step == config.steps else {}
                    self.logger.log_update(self.step, **final, **results)
                    # the existing checkpoint still lists this evaluation as pending, so save again
                    self.saved_step = None
            self._take_steps(profiler)
            for row in self.logger.read_rows(drain=True):
                self.logger.log(row)
            if self._has_all_steps and (skips := self.logger.consecutive_skips):
                self.notify(describe_last_skips(skips, self.step, config))
            if self.saved_step != self.step:
                self._save()
            world.set_phase("waiting until the checkpoint is written", math.inf)
            world.run_on_main(partial(writer.wait_until_saved, self.signals))
            self.checkpoint = self.run / CHECKPOINTS_DIR / f"step-{self.step:08}"
        if world.device.type == "cuda":
            self.logger.report_peak_memory()

    def _take_steps(self, profiler: StepProfiler | None) -> None:
        """Train until all steps are done, a stop is requested or an evaluation is interrupted."""
        config, world, loader = self.config, self.world, self.data_loader
        evaluator, logger, signals = self.evaluator, self.logger, self.signals
        is_compiling = config.compile == "yes"  # in the first step
        logger.step_start_time = time.perf_counter()
        while not (self._has_all_steps or logger.stop_requested or evaluator.is_pending):
            world.set_phase(f"reading the data of step {self.step + 1:,}")
            samples = loader.sample_range(self.step)
            if not self._wait_for_data(partial(loader.dataset.missing, samples)):
                break
            batches = loader.next_micro_batches(self.step)
            world.set_phase(f"step {self.step + 1:,}")
            if profiler:
                profiler.step(self.step + 1)
            try:
                with signals.exit_immediately(is_compiling, self.notify):
                    metrics = self.train_state.train_step(batches, self.step, signals.should_stop)
            except StopRequestedError:
                break
            logger.push(metrics, self.train_state.last_lr)
            self.step, is_compiling = self.step + 1, False
            is_last = self.step == config.steps
            if not is_last:
                loader.prefetch(self.step)  # while the device computes

            is_eval = bool(evaluator.due(self.step))
            is_save = not is_last and self.step % config.save_every == 0
            must_roll_back = self._log_steps(drain=is_eval or is_save)
            self.checkpoint_writer.poll()
            if must_roll_back:
                self._roll_back(logger.step)
            elif is_save:
                self._save()
            if is_eval or is_save:
                gc.collect()
                logger.step_start_time = time.perf_counter()  # of the next step alone

    def _wait_for_data(self, find_missing: Callable[[], str | None]) -> bool:
        """Wait until no rank misses data; return False if the run should stop instead.

        A step starts on all ranks or on none.
        """
        if not self.is_growing:  # several ranks agree on a stop in the metrics of a step
            return self.world.world_size > 1 or not self.signals.should_stop()
        self.world.set_phase("waiting for data that is being prepared", math.inf)  # maybe for days
        while True:
            missing, stop = find_missing(), self.signals.should_stop()
            any_missing, any_stop = self.world.all_reduce_max(missing is not None, stop)
            if any_stop or not any_missing:
                return not any_stop
            self.notify(missing or "waiting for another rank's data", waiting=True)
            time.sleep(POLL_INTERVAL)

    def _log_steps(self, drain: bool) -> bool:
        """Log the steps whose metrics have arrived, with the evaluation that is due now.

        Returns whether to roll back, because too many steps in a row were skipped.
        """
        logger, limit = self.logger, self.config.stability.rollback_after
        for row in logger.read_rows(drain):
            must_roll_back = logger.consecutive_skips >= limit
            is_due = row["step"] == self.step and self.evaluator.due(self.step)
            if is_due and not must_roll_back:
                row |= self.evaluator.evaluate(self.step)
                if self.evaluator.is_pending:
                    row.pop("final", None)
                elif self._has_all_steps:  # also where the run stops early
                    row["final"] = True
            logger.log(row)
            if must_roll_back:
                break
        return logger.consecutive_skips >= limit

    def _save(self) -> None:
        """Start writing the checkpoint of this step; rank 0 writes it."""
        self.world.set_phase("saving")
        state = {
            "seconds": round(time.monotonic() - self.logger.start_time, 3),
            "stability": {
                "consecutive_skips": self.logger.consecutive_skips,
                "skipped_ranges": [*self.data_loader.skipped_ranges],
            },
            **self.evaluator.state_dict(self.step),
        }
        writer = self.checkpoint_writer if self.world.is_main else None
        self.train_state.save(self.step, state, writer)
        self.saved_step = self.step

    def _roll_back(self, step: int) -> None:
        """Roll back, and exclude the samples of the failed steps, which end before `step`.

        Raises ValueError where there is no good checkpoint to restore, or after too many rollbacks.
        """
        self.world.set_phase("restoring the last good checkpoint")
        state, loader = self.train_state, self.data_loader
        count = self.logger.consecutive_skips
        first, rollbacks = step - count, len(loader.skipped_ranges)
        start, last = loader.sample_range(first).start, loader.sample_range(step - 1).stop - 1
        self.checkpoint_writer.wait_until_idle()
        was_restored = state.restore(
            lambda saved: not saved.get("stability", {}).get("consecutive_skips")
        )
        check_rollback(first, count, rollbacks, was_restored, self.config)
        loader.skipped_ranges.append([first, count])
        self.step = state.completed_steps
        # the data after this step has changed, so its checkpoint must be rewritten
        self.saved_step = None
        self.event_log.log("rolled back", step=step, to=self.step, samples=[start, last])
        self.notify(
            f"Steps {first + 1:,} to {step:,} were all skipped: restored step {self.step:,}; their "
            f"samples {start:,} to {last:,} will be skipped (to inspect them: gnano data show)."
        )
        self.logger.rewind(self.step)
