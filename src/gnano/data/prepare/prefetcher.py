"""The Hub's files, fetched ahead of the workers that will tokenize them."""

import threading
from pathlib import Path
from queue import Queue

from gnano.data.prepare.worker_pool import WorkerEvent, serialize_error
from gnano.data.source_files import SourceFiles

DOWNLOADS_FOLDER = ".downloads"  # in the data folder
DOWNLOAD_THREADS = 4  # downloads
MAX_WAITING_TASKS = 4  # tasks whose files wait for a worker

DownloadTask = tuple[str, int]


class Prefetcher:
    """Fetches the files of tasks into `DOWNLOADS/SOURCE/`, several at a time.

    Local sources need none and are always ready.
    """

    def __init__(
        self, folder: Path, source_files: dict[str, SourceFiles], events: "Queue[WorkerEvent]"
    ) -> None:
        self.folder, self.source_files, self.events = (
            folder / DOWNLOADS_FOLDER,
            source_files,
            events,
        )
        self.ready: set[DownloadTask] = set()
        self.in_progress: set[DownloadTask] = set()
        self.finished_sources: set[str] = set()  # sources that need no more
        self.requests: Queue[DownloadTask] = Queue()
        self.is_closed = False
        self.is_needed = any(found.source.kind == "hub" for found in source_files.values())
        if self.is_needed:
            for _ in range(DOWNLOAD_THREADS):
                # daemons: a download that hangs must not keep a stopped program alive
                threading.Thread(target=self._download_thread, daemon=True).start()

    def paths(self, source: str, task: int) -> list[Path]:
        """Where the files of a task are, or will be."""
        return self.source_files[source].task_paths(task, self.folder / source)

    def is_ready(self, source: str, task: int) -> bool:
        return self.source_files[source].source.kind != "hub" or (source, task) in self.ready

    @property
    def has_room(self) -> bool:
        """May another one be asked for?"""
        return (
            self.is_needed
            and len(self.ready) + len(self.in_progress) < DOWNLOAD_THREADS + MAX_WAITING_TASKS
        )

    def request(self, source: str, task: int) -> None:
        """Fetch a task's files; an event says when they are there."""
        if (source, task) not in self.in_progress:
            self.in_progress.add((source, task))
            self.requests.put((source, task))

    def mark_ready(self, source: str, task: int) -> None:
        self.in_progress.discard((source, task))
        if source not in self.finished_sources:
            self.ready.add((source, task))

    def take(self, source: str, task: int) -> list[Path]:
        """The files of a task that a worker now gets; there is room for others."""
        self.ready.discard((source, task))
        return self.paths(source, task)

    def finish_source(self, source: str) -> None:
        """The source has all it needs: what was fetched too much must not hold up others."""
        self.finished_sources.add(source)
        self.ready = {task for task in self.ready if task[0] != source}

    def delete_files(self, source: str, task: int, keep: bool) -> None:
        """A task's files have been tokenized."""
        if self.source_files[source].source.kind == "hub" and not keep:
            for path in self.paths(source, task):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Begin no other download."""
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
                self.events.put(
                    WorkerEvent(
                        kind="failed", source=source, task=task, error=serialize_error(error)
                    )
                )


def download_task(source_files: SourceFiles, task: int, folder: Path) -> int:
    """Download the files of a task of a Hub source; returns their size in bytes."""
    from gnano.utils.hf_hub import HubFile, download_file

    for file in source_files.tasks[task]:
        download_file(source_files.source.repo, source_files.commit, HubFile(*file), folder)
    return sum(file.size for file in source_files.tasks[task])
