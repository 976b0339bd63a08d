"""Downloads files from the Hub ahead of the workers that tokenize them."""

import threading
from pathlib import Path
from queue import Queue

from gnano.data.prepare.worker_pool import WorkerEvent, serialize_error
from gnano.data.source_files import SourceFiles

DOWNLOADS_FOLDER = ".downloads"  # in the data folder
DOWNLOAD_THREADS = 4
MAX_WAITING_TASKS = 4  # downloaded tasks that wait for a worker

DownloadTask = tuple[str, int]


class Prefetcher:
    """Downloads the files of tasks into `DOWNLOADS_FOLDER/SOURCE/`, several at a time.

    Tasks of local sources are always ready.
    """

    def __init__(
        self, folder: Path, source_files: dict[str, SourceFiles], events: "Queue[WorkerEvent]"
    ) -> None:
        self.folder = folder / DOWNLOADS_FOLDER
        self.source_files, self.events = source_files, events
        self.ready: set[DownloadTask] = set()
        self.in_progress: set[DownloadTask] = set()
        self.finished_sources: set[str] = set()  # they need no more downloads
        self.requests: Queue[DownloadTask] = Queue()
        self.is_closed = False
        self.is_needed = any(found.source.kind == "hub" for found in source_files.values())
        if self.is_needed:
            for _ in range(DOWNLOAD_THREADS):
                # daemons: a download that hangs must not keep a stopped process alive
                threading.Thread(target=self._download_thread, daemon=True).start()

    def paths(self, source: str, task: int) -> list[Path]:
        """Return where a task's files are, or will be, stored."""
        return self.source_files[source].task_paths(task, self.folder / source)

    def is_ready(self, source: str, task: int) -> bool:
        """Return whether a worker can read the task's files."""
        return self.source_files[source].source.kind != "hub" or (source, task) in self.ready

    @property
    def has_room(self) -> bool:
        """Whether another task may be requested."""
        active = len(self.ready) + len(self.in_progress)
        return self.is_needed and active < DOWNLOAD_THREADS + MAX_WAITING_TASKS

    def request(self, source: str, task: int) -> None:
        """Start to download a task's files; the event "fetched" follows."""
        if (source, task) not in self.in_progress:
            self.in_progress.add((source, task))
            self.requests.put((source, task))

    def mark_ready(self, source: str, task: int) -> None:
        """Record that a task's files have been downloaded."""
        self.in_progress.discard((source, task))
        if source not in self.finished_sources:
            self.ready.add((source, task))

    def take(self, source: str, task: int) -> list[Path]:
        """Return a task's files for a worker, which makes room for another download."""
        self.ready.discard((source, task))
        return self.paths(source, task)

    def finish_source(self, source: str) -> None:
        """Drop the waiting tasks of a source that needs no more, to make room for others."""
        self.finished_sources.add(source)
        self.ready = {task for task in self.ready if task[0] != source}

    def delete_files(self, source: str, task: int, keep: bool) -> None:
        """Delete a tokenized task's downloads, unless they are to be kept."""
        if self.source_files[source].source.kind == "hub" and not keep:
            for path in self.paths(source, task):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Start no other download."""
        self.is_closed = True

    def _download_thread(self) -> None:
        while True:
            source, task = self.requests.get()
            if self.is_closed:
                return
            try:
                size = download_task(self.source_files[source], task, self.folder / source)
                self.events.put(WorkerEvent(kind="fetched", source=source, task=task, bytes=size))
            except Exception as error:
                failure = serialize_error(error)
                self.events.put(WorkerEvent(kind="failed", source=source, task=task, error=failure))


def download_task(source_files: SourceFiles, task: int, folder: Path) -> int:
    """Download a task's files of a Hub source and return their size in bytes."""
    from gnano.utils.hf_hub import HubFile, download_file

    for file in source_files.tasks[task]:
        download_file(source_files.source.repo, source_files.commit, HubFile(*file), folder)
    return sum(file.size for file in source_files.tasks[task])
