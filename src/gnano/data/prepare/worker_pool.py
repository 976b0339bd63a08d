"""A pool of worker processes that tokenize tasks, one task at a time each.

    prepare ──one job per line of JSON──▶ python -m gnano.data.prepare.worker_pool
            ◀──progress, done, failed────

A worker is a new interpreter with two pipes, so it does not depend on what the calling program
has loaded or how it was started. It ends when its input ends or nobody reads its output, so a
killed `prepare` leaves no worker running. A single worker is a thread of this process.
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

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.prepare.tokenize_task import ProgressCallback, draft_folder, tokenize_task

if TYPE_CHECKING:
    from gnano.data.ngram_overlap import DecontaminationFilter
    from gnano.tokenizer.bpe import Tokenizer


REPORT_SECONDS = 0.25  # between two progress events of a worker


@dataclass(frozen=True, kw_only=True)
class TokenizeJob:
    """One task to tokenize."""

    source: str
    task: int
    paths: list[str]


@dataclass(frozen=True, kw_only=True)
class WorkerEvent:
    """A message from a worker or a download."""

    kind: str  # "progress", "done", "failed", "died", "fetched"
    source: str
    task: int
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    error: str = ""


class Worker:
    """Tokenizes in this process; loads the tokenizer and the filter with the first job."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.decontamination: DecontaminationFilter | None = None

    def tokenize(self, job: TokenizeJob, report: ProgressCallback) -> None:
        """Write the job's draft."""
        folder = Path(self.config.folder)
        if self.tokenizer is None:
            from gnano.tokenizer.bpe import Tokenizer

            self.tokenizer = Tokenizer.load(folder)
            if self.config.decontaminate:
                from gnano.data.ngram_overlap import DecontaminationFilter

                self.decontamination = DecontaminationFilter(
                    list(map(Path, self.config.decontaminate))
                )
        tokenize_task(
            self.config,
            self.config.sources[job.source],
            [Path(path) for path in job.paths],
            self.tokenizer,
            self.decontamination,
            draft_folder(folder, job.source, job.task),
            report,
        )

    def run(self, job: TokenizeJob, send: Callable[[WorkerEvent], None]) -> None:
        """Write the job's draft; send progress, success and errors as events."""
        last_report = 0.0

        def report(documents: int, size: int, tokens: int) -> None:
            nonlocal last_report
            if time.monotonic() - last_report >= REPORT_SECONDS:
                last_report = time.monotonic()
                send(event("progress", documents=documents, bytes=size, tokens=tokens))

        def event(kind: str, **details: Any) -> WorkerEvent:
            return WorkerEvent(kind=kind, source=job.source, task=job.task, **details)

        try:
            self.tokenize(job, report)
        except BrokenPipeError:  # nobody reads the events
            raise
        except Exception as error:
            send(event("failed", error=serialize_error(error)))
        else:
            send(event("done"))


class WorkerPool:
    """A pool of workers whose events arrive in one queue."""

    def __init__(self, count: int, config: DataConfig, events: "Queue[WorkerEvent]") -> None:
        self.events = events
        self.local_worker = Worker(config) if count == 1 else None
        self.free_count = count
        self.is_closed = False
        self.idle: list[subprocess.Popen[str]] = []
        self.busy: dict[tuple[str, int], subprocess.Popen[str]] = {}
        if count > 1:
            self.idle = [self._start_process(config) for _ in range(count)]

    def submit(self, job: TokenizeJob) -> None:
        """Send a job to a free worker."""
        self.free_count -= 1
        if self.local_worker:
            # a daemon, so that Ctrl-C does not wait for the end of a large file
            threading.Thread(
                target=self._run_local, args=(self.local_worker, job), daemon=True
            ).start()
            return
        process = self.idle.pop()
        self.busy[job.source, job.task] = process
        try:
            _write_line(process.stdin, asdict(job))
        except BrokenPipeError:
            self.events.put(WorkerEvent(kind="died", source=job.source, task=job.task))

    def release(self, event: WorkerEvent) -> None:
        """Make a worker available again after its job."""
        self.free_count += 1
        process = self.busy.pop((event.source, event.task), None)
        if process:
            self.idle.append(process)

    def close(self) -> None:
        """Kill all workers."""
        self.is_closed = True
        for process in [*self.idle, *self.busy.values()]:
            process.kill()
            process.communicate()

    def _run_local(self, worker: Worker, job: TokenizeJob) -> None:
        def send(event: WorkerEvent) -> None:
            if self.is_closed:
                raise BrokenPipeError  # as in a worker process
            self.events.put(event)

        with suppress(BrokenPipeError):
            worker.run(job, send)

    def _start_process(self, config: DataConfig) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gnano.data.prepare.worker_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        _write_line(process.stdin, asdict(config))
        threading.Thread(target=self._read_events, args=(process,), daemon=True).start()
        return process

    def _read_events(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # else the process was killed while it wrote the line
                self.events.put(WorkerEvent(**json.loads(line)))
        for (source, task), busy in list(self.busy.items()):
            if busy is process:
                self.events.put(WorkerEvent(kind="died", source=source, task=task))


def serialize_error(error: Exception) -> str:
    """Return an exception as text for a pipe; `raise_event_error` reads it."""
    if isinstance(error, OSError) and error.errno is not None:
        return json.dumps([error.errno, error.strerror, error.filename])
    if isinstance(error, ValueError | OSError):
        return json.dumps([str(error)])
    return json.dumps([None, "".join(traceback.format_exception(error))])


def raise_event_error(event: WorkerEvent) -> NoReturn:
    """Raise the error that was raised where the event was sent."""
    match json.loads(event.error):
        case [int(number), str(reason), path]:
            raise OSError(number, reason, path)
        case [str(message)]:
            raise ValueError(f"data.sources.{event.source}: {message}")
        case [None, trace]:
            raise RuntimeError(f"In task {event.task} of source {event.source!r}:\n{trace}")
        case other:
            raise AssertionError(other)


def _write_line(pipe: IO[str] | None, content: dict[str, Any]) -> None:
    assert pipe is not None
    pipe.write(json.dumps(content) + "\n")
    pipe.flush()


def _run_worker() -> None:
    """Run jobs from standard input until it ends; write events to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # `prepare` handles Ctrl-C and ends its workers
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps other output out of the events
    content = json.loads(sys.stdin.readline())
    sources = {name: SourceConfig(**source) for name, source in content.pop("sources").items()}
    worker = Worker(DataConfig(**content, sources=sources))
    for line in sys.stdin:
        worker.run(TokenizeJob(**json.loads(line)), lambda event: _write_line(out, asdict(event)))


if __name__ == "__main__":
    try:
        _run_worker()
    except BrokenPipeError:  # `prepare` has ended
        os._exit(1)
