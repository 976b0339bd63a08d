"""The progress of a preparation: counts by source, speed, and the time left.

From documents to token shards; killed at any moment and started again, it goes on.

    plan ─▶ downloads ─▶ workers, one task each ─▶ drafts ─▶ finishing, in sequence ─▶ shards
    `opening`   ahead    `workers`, `tokenizing`             `scheduling`, `finishing`

Only the last step depends on more than one task, and it is taken in the plan's sequence; so
the number of workers, and who was killed when, change nothing in the shards.
"""

import shutil
import time
from collections.abc import Callable
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
from gnano.utils.file_lock import lock_folder
from gnano.utils.platform_support import available_cores
from gnano.utils.progress import format_clock


class Counts(NamedTuple):
    """What a task under way, or several finished ones, amount to."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


ZERO_COUNTS = Counts()


@dataclass
class SourceStatus:
    expected_tasks: int = 0  # expected
    expected_tokens: int = 0  # expected
    finished_tasks: int = 0  # tasks
    finished: Counts = ZERO_COUNTS
    in_progress: dict[int, Counts] = field(default_factory=dict)
    downloaded_bytes: int = 0  # bytes downloaded by this process

    @property
    def counts(self) -> Counts:
        parts = [self.finished, *self.in_progress.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))


@dataclass
class PrepareStatus:
    """What `prepare` shows while it works."""

    sources: dict[str, SourceStatus] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    resumed_counts: Counts = ZERO_COUNTS  # done by earlier processes

    @property
    def counts(self) -> Counts:
        parts = [source.counts for source in self.sources.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        new = self.counts.tokens - self.resumed_counts.tokens
        if new <= 0:
            return None
        # each source by itself: one that gave more than was guessed does not shorten another
        left = sum(max(s.expected_tokens - s.counts.tokens, 0) for s in self.sources.values())
        return left * (time.monotonic() - self.started_at) / new

    def __str__(self) -> str:
        """How far it is altogether, and a line for each source."""
        seconds = max(time.monotonic() - self.started_at, 1e-3)
        speed = (self.counts.bytes - self.resumed_counts.bytes) / 1e6 / seconds
        expected = sum(max(s.expected_tokens, s.counts.tokens) for s in self.sources.values())
        share = self.counts.tokens / max(expected, 1)
        left = "" if self.seconds_left is None else f", {format_clock(self.seconds_left)} left"
        lines = [f"{share:.0%} of about {_format_count(expected)} tokens, {speed:.1f} MB/s{left}"]
        wide = max(map(len, self.sources), default=0)
        for name, source in self.sources.items():
            counts = source.counts
            lines.append(
                f"  {name:<{wide}}  {source.finished_tasks}/{source.expected_tasks} tasks, {counts.documents:,} "
                f"documents, {_format_count(counts.tokens)} tokens"
            )
            if source.downloaded_bytes:
                lines[-1] += f", {_format_count(source.downloaded_bytes)}B downloaded"
        return "\n".join(lines)


def _format_count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"


StatusCallback = Callable[[PrepareStatus], None]


def prepare(config: DataConfig, progress: StatusCallback = lambda _: None) -> Manifest:
    """Make `config.folder` hold the shards that the configuration asks for.

    Raises ValueError where a source may not be read or gives no text, a file is not what it
    seems, or the folder was prepared for something else.
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
    """Every source is complete: one manifest instead of the markers, and nothing left over.

    Once more, where an earlier process did not come to the end of it.
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
    """The configuration with the files that `decontaminate` names in the place of its globs."""
    files = find_files(config.decontaminate).paths
    return replace(config, decontaminate=tuple(map(str, files)))


class _Pipeline:
    """One run of `prepare`: its workers, its downloads, and what they have to say."""

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
        self.assigned: set[tuple[str, int]] = set()  # given to a worker, or drafted before
        self.status = PrepareStatus({name: SourceStatus() for name in config.sources})

    def run(self) -> None:
        self._advance()
        self.status.resumed_counts = self.status.counts
        todo = len(self.scheduler.pending_tasks())
        cores = self.config.workers or available_cores()
        workers = WorkerPool(max(1, min(cores, todo)), worker_config(self.config), self.events)
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
        """Hand out what is wanted next, and have the files after that downloaded."""
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
                # it was begun in case the budget should need it
                if (event.source, event.task) in self.assigned:
                    workers.release(event)
            case "failed":
                raise_event_error(event)
            case "died":
                raise ValueError(
                    f"A worker was killed in task {event.task} of source {event.source!r}, "
                    f"perhaps for lack of memory: run the same command again, with fewer "
                    f"workers (--data.workers)."
                )

    def _advance(self) -> None:
        """Finish what has its turn; the figures of all sources follow."""
        for name, task in self.scheduler.advance():
            self.status.sources[name].in_progress.pop(task, None)
        for name, status in self.status.sources.items():
            info = self.scheduler.manifest.sources[name]
            if info.complete:
                self.downloads.finish_source(name)
            status.finished_tasks, status.expected_tasks = (
                len(info.tasks),
                self.scheduler.estimate_tasks(name),
            )
            status.expected_tokens = self.scheduler.estimate_tokens(name)
            status.finished = Counts(info.documents, info.bytes, info.tokens)
