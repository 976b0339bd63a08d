"""Prepares a data folder: from documents to token shards, resumable after a kill at any moment.

    source_setup                     worker_pool                        merge_shards
    plan ─────────▶ downloads ──▶ workers, one task each ──▶ drafts ──▶ merge, in order ──▶ shards

Only the merge depends on more than one task, and it follows the plan's order; so the number of
workers and the time of a kill change nothing in the shards. Files of the Hub are downloaded ahead
of the workers, several tasks at a time.
"""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

from gnano.config.data_config import DataConfig
from gnano.data.manifest import Manifest, marker_path
from gnano.data.prepare.merge_shards import TaskScheduler
from gnano.data.prepare.source_setup import DOWNLOADS_FOLDER, open_data_folder
from gnano.data.prepare.worker_pool import (
    DRAFTS_FOLDER,
    TokenizeJob,
    WorkerEvent,
    WorkerPool,
    draft_folder,
    load_draft,
    raise_event_error,
    serialize_error,
)
from gnano.data.source_files import SourceFiles, find_files
from gnano.utils.formatting import format_clock, format_si
from gnano.utils.platform_support import available_cores

DOWNLOAD_THREADS = 4
MAX_WAITING_TASKS = 4  # downloaded tasks that wait for a worker


class Counts(NamedTuple):
    """The size of one task in progress, or of several finished ones."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


ZERO_COUNTS = Counts()


@dataclass
class SourceStatus:
    """The progress of one source."""

    expected_tasks: int = 0
    expected_tokens: int = 0
    finished_tasks: int = 0
    finished: Counts = ZERO_COUNTS
    in_progress: dict[int, Counts] = field(default_factory=dict)  # by task
    downloaded_bytes: int = 0  # bytes downloaded by this process

    @property
    def counts(self) -> Counts:
        """The counts of all tasks, finished or in progress."""
        return Counts(*map(sum, zip(self.finished, *self.in_progress.values(), strict=True)))


@dataclass
class PrepareStatus:
    """The progress of all sources: counts, speed and the time left."""

    sources: dict[str, SourceStatus]
    started_at: float = field(default_factory=time.monotonic)
    resumed_counts: Counts = ZERO_COUNTS  # of earlier processes

    @property
    def counts(self) -> Counts:
        """The counts of all sources."""
        parts = [ZERO_COUNTS, *(source.counts for source in self.sources.values())]
        return Counts(*map(sum, zip(*parts, strict=True)))

    def __str__(self) -> str:
        """Return a line for the total, and one for each source."""
        counts, sources = self.counts, self.sources.values()
        seconds = max(time.monotonic() - self.started_at, 1e-3)
        speed = (counts.bytes - self.resumed_counts.bytes) / 1e6 / seconds
        # for each source: one with more tokens than estimated does not shorten another
        tokens_left = sum(max(s.expected_tokens - s.counts.tokens, 0) for s in sources)
        expected = counts.tokens + tokens_left
        share = counts.tokens / max(expected, 1)
        first = f"{share:.0%} of about {format_si(expected)} tokens, {speed:.1f} MB/s"
        new_tokens = counts.tokens - self.resumed_counts.tokens
        if new_tokens > 0:  # the time left follows from the average speed so far
            first += f", {format_clock(tokens_left * seconds / new_tokens)} left"
        lines = [first]
        width = max(map(len, self.sources), default=0)
        for name, source in self.sources.items():
            counts = source.counts
            lines.append(
                f"  {name:<{width}}  {source.finished_tasks}/{source.expected_tasks} tasks, "
                f"{counts.documents:,} documents, {format_si(counts.tokens)} tokens"
            )
            if source.downloaded_bytes:
                lines[-1] += f", {format_si(source.downloaded_bytes)}B downloaded"
        return "\n".join(lines)


def prepare(
    config: DataConfig, progress: Callable[[PrepareStatus], None] = lambda _: None
) -> Manifest:
    """Write the shards of the configuration to `config.folder`, or complete those found there.

    Raises ValueError if a source cannot be read or has no text, a file is not of the format of its
    name, or the folder was prepared from another configuration.
    """
    with open_data_folder(config) as (manifest, inputs):
        if not manifest.complete:
            _Pipeline(config, manifest, inputs, progress).run()
        finish_folder(Path(config.folder), manifest, config.keep_downloads)
    return manifest


def finish_folder(folder: Path, manifest: Manifest, keep_downloads: bool) -> None:
    """Mark the manifest of a folder with all its shards as complete, and delete temporary files.

    May be repeated, for a process that was killed in between.
    """
    if not manifest.complete:
        manifest.complete = True
        manifest.save(folder)
    for name, info in manifest.sources.items():
        for task in range(len(info.tasks)):
            marker_path(folder / name, task).unlink(missing_ok=True)
    shutil.rmtree(folder / DRAFTS_FOLDER, ignore_errors=True)
    if not keep_downloads:
        shutil.rmtree(folder / DOWNLOADS_FOLDER, ignore_errors=True)


def worker_config(config: DataConfig) -> DataConfig:
    """Return the configuration with the globs of `decontaminate` replaced by their files."""
    files = find_files(config.decontaminate).paths
    return replace(config, decontaminate=tuple(map(str, files)))


class _Pipeline:
    """One run of `prepare`: assigns tasks to workers and downloads, and handles their events."""

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        inputs: dict[str, SourceFiles],
        progress: Callable[[PrepareStatus], None],
    ) -> None:
        self.config, self.inputs, self.progress = config, inputs, progress
        self.folder = Path(config.folder)
        self.scheduler = TaskScheduler(self.folder, manifest)
        self.events: Queue[WorkerEvent] = Queue()
        self.assigned: set[tuple[str, int]] = set()  # with a worker or a draft
        self.status = PrepareStatus({name: SourceStatus() for name in config.sources})
        self.needs_downloads = any(found.source.kind == "hub" for found in inputs.values())
        self.download_requests: Queue[tuple[str, int]] = Queue()
        self.downloading: set[tuple[str, int]] = set()
        self.downloaded: set[tuple[str, int]] = set()  # and not with a worker yet
        self.is_closed = False

    def run(self) -> None:
        """Prepare all tasks that the sources' budgets need."""
        self._advance()
        self.status.resumed_counts = self.status.counts
        limit = self.config.workers or available_cores()
        count = max(1, min(limit, len(self.scheduler.pending_tasks())))
        for _ in range(DOWNLOAD_THREADS * self.needs_downloads):
            # daemons: a download that hangs must not keep a stopped process alive
            threading.Thread(target=self._download_tasks, daemon=True).start()
        with closing(WorkerPool(count, worker_config(self.config), self.events)) as workers:
            try:
                self._submit_tasks(workers)
                while self.scheduler.unfinished:
                    with suppress(Empty):
                        event = self.events.get(timeout=1)
                        self._handle_event(event, workers)
                        if event.kind != "progress":
                            self._submit_tasks(workers)
                    self.progress(self.status)
            finally:
                self.is_closed = True

    def _download_tasks(self) -> None:
        while True:
            source, task = self.download_requests.get()
            if self.is_closed:
                return
            try:
                found = self.inputs[source]
                found.fetch_task(task, self.folder / DOWNLOADS_FOLDER / source)
                size = sum(file.size for file in found.tasks[task])
                event = WorkerEvent(kind="fetched", source=source, task=task, bytes=size)
            except Exception as error:
                failure = serialize_error(error)
                event = WorkerEvent(kind="failed", source=source, task=task, error=failure)
            self.events.put(event)

    def _submit_tasks(self, workers: WorkerPool) -> None:
        """Assign the next tasks to free workers, and request downloads for those after them."""
        for task in self.scheduler.pending_tasks():
            ahead = len(self.downloading) + len(self.downloaded)
            has_room = self.needs_downloads and ahead < DOWNLOAD_THREADS + MAX_WAITING_TASKS
            if not (workers.free_count or has_room):
                break
            if task in self.assigned:
                continue
            source, number = task
            inputs = self.inputs[source]
            if load_draft(draft_folder(self.folder, source, number)):
                self.assigned.add(task)
            elif inputs.source.kind == "hub" and task not in self.downloaded:
                if has_room and task not in self.downloading:
                    self.downloading.add(task)
                    self.download_requests.put(task)
            elif workers.free_count:
                self.assigned.add(task)
                self.downloaded.discard(task)
                paths = inputs.task_paths(number, self.folder / DOWNLOADS_FOLDER / source)
                workers.submit(TokenizeJob(source=source, task=number, paths=list(map(str, paths))))

    def _handle_event(self, event: WorkerEvent, workers: WorkerPool) -> None:
        task = event.source, event.task
        status = self.status.sources[event.source]
        is_source_complete = self.scheduler.manifest.sources[event.source].complete
        match event.kind:
            case "progress":
                status.in_progress[event.task] = Counts(event.documents, event.bytes, event.tokens)
            case "fetched":
                status.downloaded_bytes += event.bytes
                self.downloading.discard(task)
                if not is_source_complete:
                    self.downloaded.add(task)
            case "done":
                workers.release(event)
                if not self.config.keep_downloads:
                    downloads = self.folder / DOWNLOADS_FOLDER / event.source
                    self.inputs[event.source].delete_downloads(event.task, downloads)
                self._advance()
            case "failed" if is_source_complete:
                # the task was started in case the budget needed it
                if task in self.assigned:
                    workers.release(event)
            case "failed":
                raise_event_error(event)
            case "died":
                raise ValueError(
                    f"A worker was killed in task {event.task} of source {event.source!r}, "
                    f"perhaps because memory ran out. Run the same command again, with fewer "
                    f"workers (--data.workers)."
                )

    def _advance(self) -> None:
        """Merge the drafts whose turn it is, and update the status of all sources."""
        for name, task in self.scheduler.advance():
            self.status.sources[name].in_progress.pop(task, None)
        for name, status in self.status.sources.items():
            info = self.scheduler.manifest.sources[name]
            if info.complete:  # makes room for downloads of others
                self.downloaded = {task for task in self.downloaded if task[0] != name}
            status.finished_tasks = len(info.tasks)
            status.expected_tasks, status.expected_tokens = self.scheduler.estimate(name)
            status.finished = Counts(info.documents, info.bytes, info.tokens)
