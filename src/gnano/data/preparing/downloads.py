"""The Hub's files, fetched ahead of the workers that will tokenize them."""

import threading
from pathlib import Path
from queue import Queue

from gnano.data.inputs import Inputs
from gnano.data.preparing.workers import Event, failure

DOWNLOADS = ".downloads"  # in the data folder
AT_ONCE = 4  # downloads
AHEAD = 4  # tasks whose files wait for a worker

Task = tuple[str, int]


class Downloads:
    """Fetches the files of tasks into `DOWNLOADS/SOURCE/`, several at a time.

    Local sources need none and are always ready.
    """

    def __init__(self, folder: Path, inputs: dict[str, Inputs], events: "Queue[Event]") -> None:
        self.folder, self.inputs, self.events = folder / DOWNLOADS, inputs, events
        self.ready: set[Task] = set()
        self.under_way: set[Task] = set()
        self.over: set[str] = set()  # sources that need no more
        self.queue: Queue[Task] = Queue()
        self.closed = False
        self.needed = any(found.source.kind == "hub" for found in inputs.values())
        if self.needed:
            for _ in range(AT_ONCE):
                # daemons: a download that hangs must not keep a stopped program alive
                threading.Thread(target=self._fetch, daemon=True).start()

    def paths(self, source: str, task: int) -> list[Path]:
        """Where the files of a task are, or will be."""
        return self.inputs[source].paths(task, self.folder / source)

    def has(self, source: str, task: int) -> bool:
        return self.inputs[source].source.kind != "hub" or (source, task) in self.ready

    @property
    def room(self) -> bool:
        """May another one be asked for?"""
        return self.needed and len(self.ready) + len(self.under_way) < AT_ONCE + AHEAD

    def ask(self, source: str, task: int) -> None:
        """Fetch a task's files; an event says when they are there."""
        if (source, task) not in self.under_way:
            self.under_way.add((source, task))
            self.queue.put((source, task))

    def arrived(self, source: str, task: int) -> None:
        self.under_way.discard((source, task))
        if source not in self.over:
            self.ready.add((source, task))

    def take(self, source: str, task: int) -> list[Path]:
        """The files of a task that a worker now gets; there is room for others."""
        self.ready.discard((source, task))
        return self.paths(source, task)

    def end(self, source: str) -> None:
        """The source has all it needs: what was fetched too much must not hold up others."""
        self.over.add(source)
        self.ready = {task for task in self.ready if task[0] != source}

    def drop(self, source: str, task: int, keep: bool) -> None:
        """A task's files have been tokenized."""
        if self.inputs[source].source.kind == "hub" and not keep:
            for path in self.paths(source, task):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Begin no other download."""
        self.closed = True

    def _fetch(self) -> None:
        while True:
            source, task = self.queue.get()
            if self.closed:
                return
            try:
                size = fetch(self.inputs[source], task, self.folder / source)
                self.events.put(Event(kind="fetched", source=source, task=task, bytes=size))
            except Exception as error:
                self.events.put(
                    Event(kind="failed", source=source, task=task, error=failure(error))
                )


def fetch(inputs: Inputs, task: int, folder: Path) -> int:
    """Download the files of a task of a Hub source; returns their size in bytes."""
    from gnano.data.hub.files import HubFile, download

    for file in inputs.tasks[task]:
        download(inputs.source.repo, inputs.commit, HubFile(*file), folder)
    return sum(file.size for file in inputs.tasks[task])
