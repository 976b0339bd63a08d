"""The steps of a datatrove pipeline that prepares a data folder, and the executor on one machine.

    TokenizeStep   rank r of w: tasks r, r + w, r + 2w … of those wanted ─▶ drafts
    FinishStep     one rank: drafts in the plan's sequence ─▶ shards, manifest

A draft does not depend on which rank makes it, so the shards are those of `prepare`.
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

from gnano.data.inputs import Inputs
from gnano.data.manifest import Manifest, read_marker
from gnano.data.preparing.downloads import DOWNLOADS, fetch
from gnano.data.preparing.finishing import is_whole_task
from gnano.data.preparing.lock import locked
from gnano.data.preparing.preparation import conclude
from gnano.data.preparing.scheduling import Scheduler
from gnano.data.preparing.tokenizing import Draft, draft_folder
from gnano.data.preparing.workers import Event, Job, Worker, failure, raise_failure
from gnano.data.sources import DataConfig
from gnano.utils.atomic_io import write_text

LOG = "datatrove.log"  # in a round's folder: what datatrove would write to the terminal


class _Step(PipelineStep):  # type: ignore[misc]
    type = "gnano"

    def __init__(self, config: DataConfig, home: Path) -> None:
        super().__init__()
        self.config, self.home = config, home
        self.folder, self.failures = Path(config.folder), home / "failures"

    def fail(self, source: str, task: int, error: Exception) -> Event:
        """Save an error, which executors and schedulers lose, for `raise_saved_failure`."""
        event = Event(kind="failed", source=source, task=task, error=failure(error))
        self.failures.mkdir(parents=True, exist_ok=True)
        write_text(self.failures / f"{source}-{task:05}.json", json.dumps(asdict(event)))
        return event


class TokenizeStep(_Step):
    """Makes the drafts of a rank's tasks: rank r of w takes tasks r, r + w, r + 2w …"""

    name = "tokenize"

    def __init__(
        self,
        config: DataConfig,
        home: Path,
        inputs: dict[str, Inputs],
        tasks: Sequence[tuple[str, int]],
    ) -> None:
        super().__init__(config, home)
        self.inputs, self.tasks = inputs, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        worker = Worker(self.config)
        for source, task in self.tasks[rank::world_size]:
            _check_parent()
            # a rank may have been broken off, and started once more by its scheduler
            if has_draft(self.folder, source, task):
                self.stat_update("tasks made before", unit="rank")
                continue
            with self.track_time("task"):
                try:
                    self._make(worker, source, task)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    raise_failure(self.fail(source, task, error))
        return data

    def _make(self, worker: Worker, source: str, task: int) -> None:
        inputs = self.inputs[source]
        downloads = self.folder / DOWNLOADS / source
        paths = inputs.paths(task, downloads)
        if inputs.source.kind == "hub":
            fetch(inputs, task, downloads)
        worker.tokenize(Job(source=source, task=task, paths=list(map(str, paths))), _check_parent)
        if inputs.source.kind == "hub" and not self.config.keep_downloads:
            for path in paths:
                path.unlink(missing_ok=True)
        draft = Draft.load(draft_folder(self.folder, source, task))
        assert draft is not None
        self.stat_update("documents read", value=draft.read, unit="task")
        for why, count in draft.dropped.items():
            self.stat_update(f"documents {why}", value=count, unit="task")
        for what in ("documents", "tokens", "bytes"):
            trained = sum(getattr(shard, what) for shard in draft.shards)
            self.stat_update(what, value=trained, unit="task")
            self.stat_update(f"{what} held out", value=getattr(draft.heldout, what), unit="task")


class FinishStep(_Step):
    """Finishes the drafts that are there, and the manifest if nothing is missing."""

    name = "finish"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        with locked(self.folder):
            manifest = Manifest.load(self.folder)
            if manifest.complete:
                return data
            scheduler = Scheduler(self.folder, manifest)
            try:
                for _ in scheduler.advance():
                    self.stat_update("tasks finished", unit="rank")
            except Exception as error:
                self.fail(*scheduler.sequence[scheduler.next], error)
                raise
            if scheduler.complete:
                conclude(self.folder, manifest, self.config.keep_downloads)
        logger.info(f"{self.folder} lacks about {len(scheduler.wanted()):,} tasks.")
        return data


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with one process for each rank instead of a pool.

    The pool waits for ever if one of its processes is killed, as for lack of memory; and if this
    process is killed, the pool's manager lives on and holds the folder's lock.
    """

    def run(self) -> None:
        """Run the ranks until all are done or one has failed."""
        self.save_executor_as_json()
        ranks = self.get_incomplete_ranks()
        running: dict[Any, Any] = {}
        try:
            while ranks or running:
                while ranks and len(running) < self.workers:
                    process = get_context("spawn").Process(
                        target=self._run_rank, args=(ranks.pop(0),)
                    )
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
        with output_to_log(self.pipeline[0].home):
            try:
                self._run_for_rank(rank)
            except Exception:  # it is in the log and among the failures
                sys.exit(1)


def _check_parent(*_: int) -> None:
    """Raise BrokenPipeError if the parent is gone: its successor may do the same task."""
    if (parent := parent_process()) and not parent.is_alive():
        raise BrokenPipeError


def has_draft(folder: Path, source: str, task: int) -> bool:
    """Return whether the task is finished or has a draft."""
    info = read_marker(folder / source, task)
    if info and is_whole_task(folder / source, task, info):
        return True
    return Draft.load(draft_folder(folder, source, task)) is not None


def raise_saved_failure(folders: Iterable[Path]) -> None:
    """Raise the first of the failures saved in these folders, and delete them all."""
    files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    events = [Event(**json.loads(file.read_text("utf-8"))) for file in files]
    for file in files:
        file.unlink()
    for event in events:
        raise_failure(event)


@contextmanager
def output_to_log(home: Path) -> Iterator[None]:
    """Send datatrove's output to a file: its loggers write to `sys.stderr`, anew for every rank."""
    with (home / LOG).open("a", encoding="utf-8") as file, redirect_stderr(file):
        setup_default_logger()
        try:
            yield
        finally:
            logger.remove()
    setup_default_logger()
