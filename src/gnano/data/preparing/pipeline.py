"""Preparation as steps of a `datatrove` pipeline: many ranks make drafts, one finishes them.

    Tokenize   rank r of w: tasks r, r + w, r + 2w … of those wanted ─▶ drafts
    Finish     one rank: drafts in the plan's sequence ─▶ shards, manifest

All work in the data folder, which every node must see; what a task's draft holds does not
depend on who makes it, so the shards are those of `prepare`. A rank that fails leaves a note
of what it met, because executors and schedulers lose exceptions on the way.
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
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
from gnano.data.preparing.workers import Event, Job, Settings, Worker, failure, raise_failure
from gnano.utils.atomic_io import write_text

Task = tuple[str, int]


class Tokenize(PipelineStep):  # type: ignore[misc]
    """Makes the drafts of a rank's share of the tasks, unless they are there."""

    type = "gnano"
    name = "tokenize"

    def __init__(
        self,
        settings: Settings,
        inputs: dict[str, Inputs],
        tasks: Sequence[Task],
        notes: Path,
        keep_downloads: bool,
    ) -> None:
        super().__init__()
        self.settings, self.inputs, self.tasks = settings, inputs, list(tasks)
        self.notes, self.keep_downloads = notes, keep_downloads

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        worker = Worker(self.settings)
        for task in self.tasks[rank::world_size]:
            # a rank may have been broken off, and started once more by its scheduler
            if is_made(Path(self.settings.folder), *task):
                self.stat_update("tasks made before", unit="rank")
                continue
            with self.track_time("task"):
                self._make(worker, *task)
        return data

    def _make(self, worker: Worker, source: str, task: int) -> None:
        inputs = self.inputs[source]
        downloads = Path(self.settings.folder) / DOWNLOADS / source
        paths = inputs.paths(task, downloads)
        if inputs.source.kind == "hub":
            try:
                fetch(inputs, task, downloads)
            except Exception as error:
                self._fail(Event(kind="failed", source=source, task=task, error=failure(error)))
        failed: list[Event] = []

        def hear(event: Event) -> None:
            if is_orphan():
                raise BrokenPipeError
            if event.kind == "failed":
                failed.append(event)

        worker.do(Job(source=source, task=task, paths=[str(path) for path in paths]), hear)
        for event in failed:
            self._fail(event)
        if inputs.source.kind == "hub" and not self.keep_downloads:
            for path in paths:
                path.unlink(missing_ok=True)
        self._count(source, task)

    def _count(self, source: str, task: int) -> None:
        draft = Draft.load(draft_folder(Path(self.settings.folder), source, task))
        assert draft is not None
        self.stat_update("documents read", value=draft.read, unit="task")
        for why, count in draft.dropped.items():
            self.stat_update(f"documents {why}", value=count, unit="task")
        for what in ("documents", "tokens", "bytes"):
            trained = sum(getattr(shard, what) for shard in draft.shards)
            self.stat_update(what, value=trained, unit="task")
            self.stat_update(f"{what} held out", value=getattr(draft.heldout, what), unit="task")

    def _fail(self, event: Event) -> None:
        leave_note(self.notes, event)
        raise_failure(event)


class Finish(PipelineStep):  # type: ignore[misc]
    """Finishes the drafts that are there; the manifest, too, if nothing is missing."""

    type = "gnano"
    name = "finish"

    def __init__(self, folder: Path, notes: Path, keep_downloads: bool) -> None:
        super().__init__()
        self.folder, self.notes, self.keep_downloads = folder, notes, keep_downloads

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
                name, task = scheduler.sequence[scheduler.next]
                leave_note(
                    self.notes, Event(kind="failed", source=name, task=task, error=failure(error))
                )
                raise
            if scheduler.complete:
                conclude(self.folder, manifest, self.keep_downloads)
                logger.success(f"{self.folder} is complete.")
                return data
        missing = len(scheduler.wanted())
        logger.warning(
            f"{self.folder} is not complete: about {missing:,} tasks are missing. "
            f"The same command submits them."
        )
        return data


def is_made(folder: Path, source: str, task: int) -> bool:
    """Is there a draft of this task, or is it finished?"""
    info = read_marker(folder / source, task)
    if info and is_whole_task(folder / source, task, info):
        return True
    return Draft.load(draft_folder(folder, source, task)) is not None


def is_orphan() -> bool:
    """Is the process that started this one gone? Then its successor may do the same task."""
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def leave_note(notes: Path, event: Event) -> None:
    notes.mkdir(parents=True, exist_ok=True)
    write_text(notes / f"{event.source}-{event.task:05}.json", json.dumps(asdict(event)))


def raise_noted(notes: list[Path]) -> None:
    """Raise the first of the failures noted in these folders; the notes are then gone."""
    files = [file for folder in notes for file in sorted(folder.glob("*.json"))]
    events = [Event(**json.loads(file.read_text("utf-8"))) for file in files]
    for file in files:
        file.unlink()
    for event in events:
        raise_failure(event)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """What datatrove has to say goes to a file: its loggers are made for `sys.stderr`, anew
    for every rank."""
    with log.open("a", encoding="utf-8") as file, redirect_stderr(file):
        setup_default_logger()
        try:
            yield
        finally:
            logger.remove()
    setup_default_logger()


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's, but a process for each rank instead of a pool of them, and a quiet one.

    Its pool waits for ever if one of its processes is killed, as for lack of memory; and if
    this process is killed, its manager lives on and holds our lock.
    """

    def __init__(self, pipeline: list[PipelineStep], log: Path, **options: Any) -> None:
        super().__init__(pipeline, **options)
        self.log = log

    def run(self) -> None:
        """Run the ranks until all are done, or one has failed."""
        self.save_executor_as_json()
        context = get_context("spawn")
        ranks = self.get_incomplete_ranks()
        running: dict[Any, Any] = {}
        try:
            while ranks or running:
                while ranks and len(running) < self.workers:
                    process = context.Process(target=self._work, args=(ranks.pop(0),))
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

    def _work(self, rank: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
        with quiet(self.log):
            try:
                self._run_for_rank(rank)
            except Exception:  # it is in the log, and a failure of ours in a note
                sys.exit(1)
