"""The steps of a datatrove pipeline that prepares a data folder, and its executor on one machine.

    TokenizeStep   rank r of w: tasks r, r + w, r + 2w … of the pending ones ─▶ drafts
    FinishStep     one rank: drafts in the plan's order ─▶ shards, manifest

A draft does not depend on the rank that makes it, so the shards are those of `prepare`.
"""

import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger, setup_default_logger
from datatrove.utils.stats import PipelineStats
from multiprocess import get_context, parent_process
from multiprocess.connection import wait

from gnano.config.data_config import DataConfig
from gnano.data.manifest import Manifest, read_marker
from gnano.data.prepare.merge_shards import TaskScheduler, has_all_task_files
from gnano.data.prepare.pipeline import finish_folder
from gnano.data.prepare.source_setup import DOWNLOADS_FOLDER
from gnano.data.prepare.worker_pool import (
    TokenizeJob,
    Worker,
    WorkerEvent,
    draft_folder,
    load_draft,
    raise_event_error,
    serialize_error,
)
from gnano.data.source_files import SourceFiles
from gnano.utils.files import atomic_write_text, lock_folder

DATATROVE_LOG = "datatrove.log"  # in a round's folder, instead of output on the terminal


class _DataTroveStep(PipelineStep):  # type: ignore[misc]
    """A step that saves the errors of its tasks."""

    type = "gnano"

    def __init__(
        self,
        config: DataConfig,
        round_folder: Path,
        inputs: dict[str, SourceFiles] | None = None,
        tasks: Sequence[tuple[str, int]] = (),
    ) -> None:
        super().__init__()
        self.config, self.round_folder = config, round_folder
        self.inputs, self.tasks = inputs or {}, tasks
        self.folder, self.failures = Path(config.folder), round_folder / "failures"

    def save_failure(self, source: str, task: int, error: Exception) -> WorkerEvent:
        """Save an error, which executors and schedulers lose, for `raise_saved_failure`."""
        event = WorkerEvent(kind="failed", source=source, task=task, error=serialize_error(error))
        self.failures.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.failures / f"{source}-{task:05}.json", json.dumps(asdict(event)))
        return event


class TokenizeStep(_DataTroveStep):
    """Makes the drafts of a rank's tasks."""

    name = "tokenize"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Make drafts of the tasks rank, rank + world_size and so on."""
        worker = Worker(self.config)
        for source, task in self.tasks[rank::world_size]:
            _check_parent()
            # the scheduler may have restarted a rank that was interrupted
            if is_task_done(self.folder, source, task):
                self.stat_update("tasks made before", unit="rank")
                continue
            with self.track_time("task"):
                try:
                    self._tokenize_task(worker, source, task)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    raise_event_error(self.save_failure(source, task, error))
        return data

    def _tokenize_task(self, worker: Worker, source: str, task: int) -> None:
        inputs, downloads = self.inputs[source], self.folder / DOWNLOADS_FOLDER / source
        paths = list(map(str, inputs.fetch_task(task, downloads)))
        worker.tokenize(TokenizeJob(source=source, task=task, paths=paths), _check_parent)
        if not self.config.keep_downloads:
            inputs.delete_downloads(task, downloads)
        draft = load_draft(draft_folder(self.folder, source, task))
        assert draft
        self.stat_update("documents read", value=draft.read, unit="task")
        for why, count in draft.dropped.items():
            self.stat_update(f"documents {why}", value=count, unit="task")
        for unit in ("documents", "tokens", "bytes"):
            total = sum(getattr(shard, unit) for shard in draft.shards)
            self.stat_update(unit, value=total, unit="task")
            self.stat_update(f"{unit} held out", value=getattr(draft.heldout, unit), unit="task")


class FinishStep(_DataTroveStep):
    """Merges the existing drafts, and completes the manifest if no task is missing."""

    name = "finish"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Merge drafts in the plan's order as far as there are any."""
        with lock_folder(self.folder):
            manifest = Manifest.load(self.folder)
            if manifest.complete:
                return data
            scheduler = TaskScheduler(self.folder, manifest)
            try:
                for _ in scheduler.advance():
                    self.stat_update("tasks finished", unit="rank")
            except Exception as error:
                self.save_failure(*scheduler.unfinished[0], error)
                raise
            if not scheduler.unfinished:
                finish_folder(self.folder, manifest, self.config.keep_downloads)
        logger.info(f"{self.folder}: about {len(scheduler.pending_tasks()):,} tasks are missing.")
        return data


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with one process per rank instead of a pool.

    The pool hangs if one of its processes is killed, for example when memory runs out; and if this
    process is killed, the pool's manager continues and holds the folder's lock.
    """

    def run(self) -> None:
        """Run the ranks until all are done or one has failed."""
        self.save_executor_as_json()
        ranks = self.get_incomplete_ranks()
        running: dict[Any, Any] = {}
        try:
            while ranks or running:
                while ranks and len(running) < self.workers:
                    context = get_context("spawn")
                    process = context.Process(target=self._run_rank, args=(ranks.pop(0),))
                    process.start()
                    running[process.sentinel] = process
                for sentinel in wait(list(running)):
                    process = running.pop(sentinel)
                    process.join()
                    if process.exitcode:
                        return
        finally:
            for process in running.values():
                process.kill()
                process.join()
        total = PipelineStats()
        for rank in range(self.world_size):
            with self.logging_dir.open(f"stats/{rank:05d}.json") as file:
                total += PipelineStats.from_json(json.load(file))
        with self.logging_dir.open("stats.json", "wt") as file:
            total.save_to_disk(file)

    def _run_rank(self, rank: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
        with redirect_output(self.pipeline[0].round_folder):
            try:
                self._run_for_rank(rank)
            except Exception:  # the log and the saved failures have it
                sys.exit(1)


def _check_parent(*_: int) -> None:
    """Raise BrokenPipeError if the parent has ended: its successor may do the same task."""
    if (parent := parent_process()) and not parent.is_alive():
        raise BrokenPipeError


def is_task_done(folder: Path, source: str, task: int) -> bool:
    """Return whether the task is finished or has a draft."""
    info = read_marker(folder / source, task)
    if info and has_all_task_files(folder / source, task, info):
        return True
    return load_draft(draft_folder(folder, source, task)) is not None


def raise_saved_failure(folders: Iterable[Path]) -> None:
    """Raise the first of the failures saved in these folders, and delete them all."""
    files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    events = [WorkerEvent(**json.loads(file.read_text("utf-8"))) for file in files]
    for file in files:
        file.unlink()
    for event in events:
        raise_event_error(event)


@contextmanager
def redirect_output(round_folder: Path) -> Iterator[None]:
    """Send datatrove's output to a file; every rank's loggers write to the current `sys.stderr`."""
    with (round_folder / DATATROVE_LOG).open("a", encoding="utf-8") as file, redirect_stderr(file):
        setup_default_logger()
        try:
            yield
        finally:
            logger.remove()
    setup_default_logger()
