"""Who tokenizes? Processes of their own, one per core, each with one task at a time.

    prepare ──a job, as a line of JSON──▶ python -m gnano.data.preparing.workers FOLDER
            ◀──progress, done, failed────

A worker is a fresh interpreter with two pipes, so it does not matter what the program that
calls `prepare` has loaded or how it was started. It ends when its input does, or when
nobody reads its reports: a killed `prepare` leaves no worker behind. A single worker is a
thread of this process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import IO, TYPE_CHECKING, Any, NoReturn

from gnano.data.preparing.tokenizing import Rules, draft_folder, tokenize_task
from gnano.data.sources import Source

if TYPE_CHECKING:
    from gnano.data.decontamination import Decontamination
    from gnano.tokenizer import Tokenizer

SPEAK_EVERY = 0.25  # seconds between two reports


@dataclass(frozen=True, kw_only=True)
class Job:
    """One task to tokenize."""

    source: str
    task: int
    paths: list[str]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker, or a download, has to say."""

    kind: str  # "progress", "done", "failed", "died", "fetched"
    source: str
    task: int
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all jobs of a preparation share; a worker gets it as its first line."""

    folder: str
    sources: dict[str, Source]
    heldout: float
    shard_tokens: int
    max_bad_share: float
    decontaminate: list[str]


class Worker:
    """Does jobs in this process; loads what they need when the first one comes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokenizer: Tokenizer | None = None
        self.decontamination: Decontamination | None = None

    def do(self, job: Job, tell: Callable[[Event], None]) -> None:
        """Make the job's draft; a user's mistake is told, not raised."""
        spoke = 0.0

        def report(documents: int, size: int, tokens: int) -> None:
            nonlocal spoke
            if time.monotonic() - spoke >= SPEAK_EVERY:
                spoke = time.monotonic()
                tell(event("progress", documents=documents, bytes=size, tokens=tokens))

        def event(kind: str, **facts: Any) -> Event:
            return Event(kind=kind, source=job.source, task=job.task, **facts)

        try:
            self._load()
            assert self.tokenizer is not None
            rules = Rules(
                self.settings.sources[job.source],
                self.settings.heldout,
                self.settings.shard_tokens,
                self.tokenizer.end_of_text,
                self.settings.max_bad_share,
            )
            paths = [Path(path) for path in job.paths]
            draft = draft_folder(Path(self.settings.folder), job.source, job.task)
            tokenize_task(rules, paths, self.tokenizer, self.decontamination, draft, report)
        except BrokenPipeError:  # nobody listens any more
            raise
        except Exception as error:
            tell(event("failed", error=failure(error)))
        else:
            tell(event("done"))

    def _load(self) -> None:
        if self.tokenizer is None:
            from gnano.tokenizer import Tokenizer

            self.tokenizer = Tokenizer.load(Path(self.settings.folder))
            if self.settings.decontaminate:
                from gnano.data.decontamination import Decontamination

                files = [Path(file) for file in self.settings.decontaminate]
                self.decontamination = Decontamination(files)


class Workers:
    """So many workers; what they say lands in one queue of events."""

    def __init__(self, count: int, settings: Settings, events: "Queue[Event]") -> None:
        self.events = events
        self.here = Worker(settings) if count == 1 else None
        self.free = count
        self.closed = False
        self.idle: list[subprocess.Popen[str]] = []
        self.busy: dict[tuple[str, int], subprocess.Popen[str]] = {}
        for _ in range(count if count > 1 else 0):
            self.idle.append(self._start(settings))

    def give(self, job: Job) -> None:
        """Hand a job to a free worker."""
        self.free -= 1
        if self.here:
            # a daemon, so that Ctrl-C need not wait for the end of a large file
            threading.Thread(target=self._do_here, args=(self.here, job), daemon=True).start()
            return
        process = self.idle.pop()
        self.busy[job.source, job.task] = process
        try:
            _say(process.stdin, asdict(job))
        except BrokenPipeError:
            self.events.put(Event(kind="died", source=job.source, task=job.task))

    def release(self, event: Event) -> None:
        """A worker's job is over: it may have another."""
        self.free += 1
        process = self.busy.pop((event.source, event.task), None)
        if process:
            self.idle.append(process)

    def close(self) -> None:
        self.closed = True
        for process in [*self.idle, *self.busy.values()]:
            process.kill()
            process.communicate()

    def _do_here(self, worker: Worker, job: Job) -> None:
        with suppress(BrokenPipeError):
            worker.do(job, self._tell)

    def _tell(self, event: Event) -> None:
        if self.closed:
            raise BrokenPipeError  # what a worker process would meet
        self.events.put(event)

    def _start(self, settings: Settings) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gnano.data.preparing.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        _say(process.stdin, asdict(settings))
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.events.put(Event(**json.loads(line)))
        for (source, task), busy in list(self.busy.items()):
            if busy is process:
                self.events.put(Event(kind="died", source=source, task=task))


def failure(error: Exception) -> str:
    """An exception as text that crosses a pipe; see `raise_failure`."""
    if isinstance(error, OSError) and error.errno is not None:
        return json.dumps([error.errno, error.strerror, error.filename])
    if isinstance(error, ValueError | OSError):
        return json.dumps([str(error)])
    return json.dumps([None, "".join(traceback.format_exception(error))])


def raise_failure(event: Event) -> NoReturn:
    """Raise here what was raised where the event came from."""
    match json.loads(event.error):
        case [int(number), str(reason), where]:
            raise OSError(number, reason, where)
        case [str(sentence)]:
            raise ValueError(f"data.sources.{event.source}: {sentence}")
        case [None, trace]:
            raise RuntimeError(f"In task {event.task} of source {event.source!r}:\n{trace}")
        case other:
            raise AssertionError(other)


def _say(pipe: IO[str] | None, content: dict[str, Any]) -> None:
    assert pipe is not None
    pipe.write(json.dumps(content) + "\n")
    pipe.flush()


def _serve() -> None:
    """A worker's life: jobs from standard input until it ends, events to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for `prepare`, which ends us
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # no stray print among the events
    content = json.loads(sys.stdin.readline())
    sources = {name: Source(**source) for name, source in content["sources"].items()}
    worker = Worker(Settings(**{**content, "sources": sources}))
    for line in sys.stdin:
        worker.do(Job(**json.loads(line)), lambda event: _say(out, asdict(event)))


if __name__ == "__main__":
    try:
        _serve()
    except BrokenPipeError:  # `prepare` is gone
        os._exit(1)
