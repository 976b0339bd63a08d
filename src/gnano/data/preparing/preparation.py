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
from gnano.data.inputs import Inputs
from gnano.data.manifest import Manifest, marker
from gnano.data.preparing.downloads import DOWNLOADS, Downloads
from gnano.data.preparing.lock import locked
from gnano.data.preparing.opening import check_folder, open_folder
from gnano.data.preparing.scheduling import Scheduler
from gnano.data.preparing.status import Counts, SourceStatus, Status
from gnano.data.preparing.tokenizing import WORK, Draft, draft_folder
from gnano.data.preparing.workers import Event, Job, Workers, raise_failure
from gnano.data.sources import DataConfig
from gnano.utils.host import available_cores

Progress = Callable[[Status], None]


def prepare(config: DataConfig, progress: Progress = lambda _: None) -> Manifest:
    """Make `config.folder` hold the shards that the configuration asks for.

    Raises ValueError where a source may not be read or gives no text, a file is not what it
    seems, or the folder was prepared for something else.
    """
    folder = Path(config.folder)
    check_folder(config)
    with locked(folder):
        manifest, inputs = open_folder(config)
        if not manifest.complete:
            _Preparation(config, manifest, inputs, progress).run()
        conclude(folder, manifest, config.keep_downloads)
    return manifest


def conclude(folder: Path, manifest: Manifest, keep_downloads: bool) -> None:
    """Every source is complete: one manifest instead of the markers, and nothing left over.

    Once more, where an earlier process did not come to the end of it.
    """
    if not manifest.complete:
        manifest.complete = True
        manifest.save(folder)
    for name, info in manifest.sources.items():
        for task in range(len(info.tasks)):
            marker(folder / name, task).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    if not keep_downloads:
        shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)


def worker_config(config: DataConfig) -> DataConfig:
    """The configuration with the files that `decontaminate` names in the place of its globs."""
    files = find_files(config.decontaminate).paths
    return replace(config, decontaminate=tuple(map(str, files)))


class _Preparation:
    """One run of `prepare`: its workers, its downloads, and what they have to say."""

    def __init__(
        self, config: DataConfig, manifest: Manifest, inputs: dict[str, Inputs], progress: Progress
    ) -> None:
        self.config, self.progress = config, progress
        self.folder = Path(config.folder)
        self.scheduler = Scheduler(self.folder, manifest)
        self.events: Queue[Event] = Queue()
        self.downloads = Downloads(self.folder, inputs, self.events)
        self.taken: set[tuple[str, int]] = set()  # given to a worker, or drafted before
        self.status = Status({name: SourceStatus() for name in config.sources})

    def run(self) -> None:
        self._finish()
        self.status.earlier = self.status.counts
        todo = len(self.scheduler.wanted())
        cores = self.config.workers or available_cores()
        workers = Workers(max(1, min(cores, todo)), worker_config(self.config), self.events)
        with closing(workers), closing(self.downloads):
            self._give(workers)
            while not self.scheduler.complete:
                with suppress(Empty):
                    event = self.events.get(timeout=1)
                    self._hear(event, workers)
                    if event.kind != "progress":
                        self._give(workers)
                self.progress(self.status)

    def _give(self, workers: Workers) -> None:
        """Hand out what is wanted next, and have the files after that downloaded."""
        for task in self.scheduler.wanted():
            if not (workers.free or self.downloads.room):
                break
            if task in self.taken:
                continue
            if Draft.load(draft_folder(self.folder, *task)):
                self.taken.add(task)
            elif not self.downloads.has(*task):
                if self.downloads.room:
                    self.downloads.ask(*task)
            elif workers.free:
                self.taken.add(task)
                paths = [str(path) for path in self.downloads.take(*task)]
                workers.give(Job(source=task[0], task=task[1], paths=paths))

    def _hear(self, event: Event, workers: Workers) -> None:
        source = self.status.sources[event.source]
        match event.kind:
            case "progress":
                source.under_way[event.task] = Counts(event.documents, event.bytes, event.tokens)
            case "fetched":
                source.fetched += event.bytes
                self.downloads.arrived(event.source, event.task)
            case "done":
                workers.release(event)
                self.downloads.drop(event.source, event.task, self.config.keep_downloads)
                self._finish()
            case "failed" if self.scheduler.manifest.sources[event.source].complete:
                # it was begun in case the budget should need it
                if (event.source, event.task) in self.taken:
                    workers.release(event)
            case "failed":
                raise_failure(event)
            case "died":
                raise ValueError(
                    f"A worker was killed in task {event.task} of source {event.source!r}, "
                    f"perhaps for lack of memory: run the same command again, with fewer "
                    f"workers (--data.workers)."
                )

    def _finish(self) -> None:
        """Finish what has its turn; the figures of all sources follow."""
        for name, task in self.scheduler.advance():
            self.status.sources[name].under_way.pop(task, None)
        for name, status in self.status.sources.items():
            info = self.scheduler.manifest.sources[name]
            if info.complete:
                self.downloads.end(name)
            status.done, status.tasks = len(info.tasks), self.scheduler.needed(name)
            status.tokens = self.scheduler.expected_tokens(name)
            status.finished = Counts(info.documents, info.bytes, info.tokens)
