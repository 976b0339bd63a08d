"""From documents to token shards; killed at any moment and started again, it goes on.

    plan ─▶ downloads ─▶ workers, one task each ─▶ drafts ─▶ finishing, in sequence ─▶ shards
    `opening`   ahead    `workers`, `tokenizing`             `scheduling`, `finishing`

Only the last step depends on more than one task, and it is taken in the plan's sequence; so
the number of workers, and who was killed when, change nothing in the shards.
"""

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue

from gnano.data.file_search import find_files
from gnano.data.inputs import SourceFiles
from gnano.data.manifest import Manifest, marker_path
from gnano.data.preparing.downloads import DOWNLOADS_FOLDER, Prefetcher
from gnano.data.preparing.lock import lock_folder
from gnano.data.preparing.opening import check_output_folder, open_data_folder
from gnano.data.preparing.scheduling import TaskScheduler
from gnano.data.preparing.status import Counts, PrepareStatus, SourceStatus
from gnano.data.preparing.tokenizing import DRAFTS_FOLDER, TaskDraft, draft_folder
from gnano.data.preparing.workers import TokenizeJob, WorkerEvent, WorkerPool, raise_event_error
from gnano.data.sources import DataConfig
from gnano.utils.host import available_cores

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
