"""Prepares a data folder: from documents to token shards, resumable after a kill at any moment.

    source_setup    prefetcher     worker_pool, tokenize_task     task_scheduler, merge_shards
    plan ─────────▶ downloads ──▶ workers, one task each ──▶ drafts ──▶ merge, in order ──▶ shards

Only the merge depends on more than one task, and it follows the plan's order; so the number of
workers and the time of a kill change nothing in the shards.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

from gnano.config.data_config import DataConfig
from gnano.data.manifest import Manifest, marker_path
from gnano.data.prepare.prefetcher import DOWNLOADS_FOLDER, Prefetcher
from gnano.data.prepare.source_setup import check_output_folder, open_data_folder
from gnano.data.prepare.task_scheduler import TaskScheduler
from gnano.data.prepare.tokenize_task import DRAFTS_FOLDER, TaskDraft, draft_folder
from gnano.data.prepare.worker_pool import TokenizeJob, WorkerEvent, WorkerPool, raise_event_error
from gnano.data.source_files import SourceFiles, find_files
from gnano.utils.files import lock_folder
from gnano.utils.formatting import format_clock
from gnano.utils.platform_support import available_cores


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
        return _sum_counts([self.finished, *self.in_progress.values()])


@dataclass
class PrepareStatus:
    """The progress of all sources: counts, speed and the time left."""

    sources: dict[str, SourceStatus] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    resumed_counts: Counts = ZERO_COUNTS  # of earlier processes

    @property
    def counts(self) -> Counts:
        """The counts of all sources."""
        return _sum_counts([source.counts for source in self.sources.values()])

    @property
    def seconds_left(self) -> float | None:
        """The time left at the average speed so far; None before there is one."""
        new = self.counts.tokens - self.resumed_counts.tokens
        if new <= 0:
            return None
        # for each source: one with more tokens than estimated does not shorten another
        left = sum(max(s.expected_tokens - s.counts.tokens, 0) for s in self.sources.values())
        return left * (time.monotonic() - self.started_at) / new

    def __str__(self) -> str:
        """Return a line for the total, and one for each source."""
        seconds = max(time.monotonic() - self.started_at, 1e-3)
        speed = (self.counts.bytes - self.resumed_counts.bytes) / 1e6 / seconds
        expected = sum(max(s.expected_tokens, s.counts.tokens) for s in self.sources.values())
        share = self.counts.tokens / max(expected, 1)
        left = "" if self.seconds_left is None else f", {format_clock(self.seconds_left)} left"
        lines = [f"{share:.0%} of about {_format_count(expected)} tokens, {speed:.1f} MB/s{left}"]
        width = max(map(len, self.sources), default=0)
        for name, source in self.sources.items():
            counts = source.counts
            lines.append(
                f"  {name:<{width}}  {source.finished_tasks}/{source.expected_tasks} tasks, "
                f"{counts.documents:,} documents, {_format_count(counts.tokens)} tokens"
            )
            if source.downloaded_bytes:
                lines[-1] += f", {_format_count(source.downloaded_bytes)}B downloaded"
        return "\n".join(lines)


def _sum_counts(parts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*parts, strict=True)))


def _format_count(number: float) -> str:
    """Format 1234567 as '1.23 M'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"


StatusCallback = Callable[[PrepareStatus], None]


def prepare(config: DataConfig, progress: StatusCallback = lambda _: None) -> Manifest:
    """Write the shards of the configuration to `config.folder`, or complete those found there.

    Raises ValueError if a source cannot be read or has no text, a file is not of the format of its
    name, or the folder was prepared from another configuration.
    """
    folder = Path(config.folder)
    check_output_folder(config)
    with lock_folder(folder):
        manifest, inputs = open_data_folder(config)
        if not manifest.complete:
            _Pipeline(config, manifest, inputs, progress).run()
        finish_folder(folder, manifest, config.keep_downloads)
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
        progress: StatusCallback,
    ) -> None:
        self.config, self.progress = config, progress
        self.folder = Path(config.folder)
        self.scheduler = TaskScheduler(self.folder, manifest)
        self.events: Queue[WorkerEvent] = Queue()
        self.downloads = Prefetcher(self.folder, inputs, self.events)
        self.assigned: set[tuple[str, int]] = set()  # with a worker or a draft
        self.status = PrepareStatus({name: SourceStatus() for name in config.sources})

    def run(self) -> None:
        """Prepare all tasks that the sources' budgets need."""
        self._advance()
        self.status.resumed_counts = self.status.counts
        limit = self.config.workers or available_cores()
        count = max(1, min(limit, len(self.scheduler.pending_tasks())))
        workers = WorkerPool(count, worker_config(self.config), self.events)
        with closing(workers), closing(self.downloads):
            self._submit_tasks(workers)
            while not self.scheduler.is_complete:
                with suppress(Empty):
                    event = self.events.get(timeout=1)
                    self._handle_event(event, workers)
                    if event.kind != "progress":
                        self._submit_tasks(workers)
                self.progress(self.status)

    def _submit_tasks(self, workers: WorkerPool) -> None:
        """Assign the next tasks to free workers, and request downloads for those after them."""
        for task in self.scheduler.pending_tasks():
            if not (workers.free_count or self.downloads.has_room):
                break
            if task in self.assigned:
                continue
            if TaskDraft.load(draft_folder(self.folder, *task)):
                self.assigned.add(task)
            elif not self.downloads.is_ready(*task):
                if self.downloads.has_room:
                    self.downloads.request(*task)
            elif workers.free_count:
                self.assigned.add(task)
                paths = [str(path) for path in self.downloads.take(*task)]
                workers.submit(TokenizeJob(source=task[0], task=task[1], paths=paths))

    def _handle_event(self, event: WorkerEvent, workers: WorkerPool) -> None:
        source = self.status.sources[event.source]
        match event.kind:
            case "progress":
                source.in_progress[event.task] = Counts(event.documents, event.bytes, event.tokens)
            case "fetched":
                source.downloaded_bytes += event.bytes
                self.downloads.mark_ready(event.source, event.task)
            case "done":
                workers.release(event)
                self.downloads.delete_files(event.source, event.task, self.config.keep_downloads)
                self._advance()
            case "failed" if self.scheduler.manifest.sources[event.source].complete:
                # the task was started in case the budget needed it
                if (event.source, event.task) in self.assigned:
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
            if info.complete:
                self.downloads.finish_source(name)
            status.finished_tasks = len(info.tasks)
            status.expected_tasks = self.scheduler.estimate_tasks(name)
            status.expected_tokens = self.scheduler.estimate_tokens(name)
            status.finished = Counts(info.documents, info.bytes, info.tokens)
