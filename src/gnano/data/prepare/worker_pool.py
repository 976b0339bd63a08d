"""Worker processes, each of which tokenizes one task at a time into a draft.

    prepare ──one job per line of JSON──▶ python -m gnano.data.prepare.worker_pool
            ◀──progress, done, failed────

    files ─▶ documents ─▶ length limits, decontamination ─▶ held-out split ─▶ tokenizer ─▶ draft

A worker is a new interpreter with two pipes, so it does not depend on what the calling program
has loaded or how it was started. It ends when its input ends or nobody reads its output, so a
killed `prepare` leaves no worker running. A single worker is a thread of this process.

A draft is a folder of shards, each with its documents' keys (hashes of their texts) and sizes, with
which `merge_shards` removes documents that other tasks repeat. It depends only on its task and the
plan, so any process may make it at any time. It is renamed to its name when it is complete.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.manifest import TaskInfo, is_heldout, text_position
from gnano.data.shards import ShardInfo, ShardWriter, has_all_shard_files
from gnano.data.source_files import read_task_documents
from gnano.data.text_files import BadRecordCounter
from gnano.utils.files import atomic_write_bytes, atomic_write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gnano.data.ngram_overlap import DecontaminationFilter
    from gnano.tokenizer.bpe import Tokenizer


KEY_DTYPE = np.dtype("<u8")
SIZE_DTYPE = np.dtype("<u4")
MIN_SHARD_TOKENS = 2**16  # a task's last shard is not shorter, unless the task is
REPORT_EVERY_DOCUMENTS = 64  # documents between two progress reports
REPORT_SECONDS = 0.25  # between two progress events of a worker
HELDOUT_SHARD = "heldout"
DRAFTS_FOLDER = ".work"  # in the data folder, so that shards can be renamed into place

ProgressCallback = Callable[[int, int, int], None]  # documents, bytes and training tokens so far


def draft_folder(folder: Path, source: str, task: int) -> Path:
    """Return the folder of a task's draft."""
    return folder / DRAFTS_FOLDER / source / f"{task:05}"


def load_draft(folder: Path) -> TaskInfo | None:
    """Load a draft; return None if it is missing or incomplete."""
    try:
        draft = TaskInfo.from_json(json.loads((folder / "draft.json").read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        return None
    assert draft.heldout
    is_complete = all(has_all_shard_files(folder, s) for s in [*draft.shards, draft.heldout])
    return draft if is_complete else None


class _DraftShard(ShardWriter):
    """A shard that is being written, with its documents' keys and sizes."""

    def __init__(self, folder: Path, name: str, end_of_text: int, vocab_size: int) -> None:
        super().__init__(folder, name, end_of_text, vocab_size)
        self.keys, self.sizes = array("Q"), array("I")

    def add_document(self, ids: "NDArray[Any]", size: int, key: int) -> None:
        self.add(ids, size)
        self.keys.append(key)
        self.sizes.append(size)

    def finish(self) -> ShardInfo:
        path = self.folder / self.name
        keys, sizes = np.array(self.keys, KEY_DTYPE), np.array(self.sizes, SIZE_DTYPE)
        atomic_write_bytes(path.with_suffix(".keys"), keys.tobytes())
        atomic_write_bytes(path.with_suffix(".sizes"), sizes.tobytes())
        return super().finish()


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


@dataclass
class Worker:
    """Tokenizes in this process; loads the tokenizer and the filter with the first job."""

    config: DataConfig

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the data folder."""
        from gnano.tokenizer.hf_tokenizer import load_tokenizer

        return load_tokenizer(Path(self.config.folder))

    @cached_property
    def decontamination(self) -> "DecontaminationFilter | None":
        """The 13-grams of the evaluation files."""
        if not self.config.decontaminate:
            return None
        from gnano.data.ngram_overlap import DecontaminationFilter

        return DecontaminationFilter([Path(path) for path in self.config.decontaminate])

    def tokenize(self, job: TokenizeJob, report: ProgressCallback) -> None:
        """Write the job's draft."""
        source, tokenizer = self.config.sources[job.source], self.tokenizer
        paths = [Path(path) for path in job.paths]
        folder = draft_folder(Path(self.config.folder), job.source, job.task)
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        min_tokens = min(MIN_SHARD_TOKENS, self.config.shard_tokens)
        dropped = dict.fromkeys(("short", "long", "contaminated", "empty", "bad"), 0)
        bad = BadRecordCounter(strict=not self.config.max_bad_share)
        size = tokens = pending_tokens = 0
        pending: list[tuple[NDArray[Any], int, int]] = []  # documents of a shard not started yet
        shards: list[_DraftShard] = []
        with ExitStack() as stack:

            def open_shard(name: str) -> _DraftShard:
                ids = tokenizer.end_of_text_id, tokenizer.vocab_size
                return stack.enter_context(_DraftShard(temporary, name, *ids))

            heldout = open_shard(HELDOUT_SHARD)
            for document in bad.filter(read_task_documents(source, paths)):
                if why := self._drop_reason(document.text, source):
                    dropped[why] += 1
                    continue
                ids, key = tokenizer.encode_array(document.text), text_position(document.text)
                document_size = len(document.text.encode())
                size += document_size
                if is_heldout(document, self.config.heldout_fraction, key):
                    heldout.add_document(ids, document_size, key)
                else:
                    pending.append((ids, document_size, key))
                    pending_tokens += len(ids) + 1
                    tokens += len(ids) + 1
                    has_room = bool(shards) and shards[-1].tokens < self.config.shard_tokens
                    if not has_room and pending_tokens >= min_tokens:
                        shards.append(open_shard(f"{len(shards):03}"))
                        has_room = True
                    if has_room:
                        for one in pending:
                            shards[-1].add_document(*one)
                        pending, pending_tokens = [], 0
                if bad.read_count % REPORT_EVERY_DOCUMENTS == 0:
                    report(bad.read_count, size, tokens)
                if 0 < source.max_tokens <= tokens:
                    break
            if pending and not shards:
                shards.append(open_shard("000"))
            for one in pending:  # too few for another shard
                shards[-1].add_document(*one)
            dropped["bad"] = bad.bad_count
            draft = TaskInfo(
                shards=[shard.finish() for shard in shards],
                heldout=heldout.finish(),
                read=bad.read_count,
                dropped=dropped,
                bad=[(paths.index(one.path), one.line, one.reason) for one in bad.examples],
            )
        report(bad.read_count, size, tokens)
        atomic_write_text(temporary / "draft.json", json.dumps(asdict(draft)))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)

    def _drop_reason(self, text: str, source: SourceConfig) -> str:
        """Return why a document is left out; "" if it is not."""
        if not text.strip():
            return "empty"
        if len(text) < source.min_chars:
            return "short"
        if 0 < source.max_chars < len(text):
            return "long"
        is_contaminated = self.decontamination and self.decontamination.is_contaminated(text)
        return "contaminated" if is_contaminated else ""

    def run(self, job: TokenizeJob, send: Callable[[WorkerEvent], None]) -> None:
        """Write the job's draft; send progress, success and errors as events."""
        event = partial(WorkerEvent, source=job.source, task=job.task)
        last_report = 0.0

        def report(documents: int, size: int, tokens: int) -> None:
            nonlocal last_report
            if time.monotonic() - last_report >= REPORT_SECONDS:
                last_report = time.monotonic()
                send(event(kind="progress", documents=documents, bytes=size, tokens=tokens))

        try:
            self.tokenize(job, report)
        except BrokenPipeError:  # nobody reads the events
            raise
        except Exception as error:
            send(event(kind="failed", error=serialize_error(error)))
        else:
            send(event(kind="done"))


class WorkerPool:
    """A pool of workers whose events arrive in one queue."""

    def __init__(self, count: int, config: DataConfig, events: "Queue[WorkerEvent]") -> None:
        self.events = events
        self.local_worker = Worker(config) if count == 1 else None
        self.free_count = count
        self.is_closed = False
        self.busy: dict[tuple[str, int], subprocess.Popen[str]] = {}
        processes = 0 if self.local_worker else count
        self.idle = [self._start_process(config) for _ in range(processes)]

    def submit(self, job: TokenizeJob) -> None:
        """Send a job to a free worker."""
        self.free_count -= 1
        if self.local_worker:
            # a daemon, so that Ctrl-C does not wait for the end of a large file
            threading.Thread(target=self._run_local, args=[job], daemon=True).start()
            return
        process = self.idle.pop()
        self.busy[job.source, job.task] = process
        try:
            print(json.dumps(asdict(job)), file=process.stdin, flush=True)
        except BrokenPipeError:
            self.events.put(WorkerEvent(kind="died", source=job.source, task=job.task))

    def release(self, event: WorkerEvent) -> None:
        """Make a worker available again after its job."""
        self.free_count += 1
        if process := self.busy.pop((event.source, event.task), None):
            self.idle.append(process)

    def close(self) -> None:
        """Kill all workers."""
        self.is_closed = True
        for process in [*self.idle, *self.busy.values()]:
            process.kill()
            process.communicate()

    def _run_local(self, job: TokenizeJob) -> None:
        def send(event: WorkerEvent) -> None:
            if self.is_closed:
                raise BrokenPipeError  # as in a worker process
            self.events.put(event)

        assert self.local_worker
        with suppress(BrokenPipeError):
            self.local_worker.run(job, send)

    def _start_process(self, config: DataConfig) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gnano.data.prepare.worker_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        print(json.dumps(asdict(config)), file=process.stdin, flush=True)
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


def _run_worker() -> None:
    """Run jobs from standard input until it ends; write events to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # `prepare` handles Ctrl-C and ends its workers
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps other output out of the events
    content = json.loads(sys.stdin.readline())
    sources = {name: SourceConfig(**source) for name, source in content.pop("sources").items()}
    worker = Worker(DataConfig(**content, sources=sources))

    def send(event: WorkerEvent) -> None:
        print(json.dumps(asdict(event)), file=out, flush=True)

    for line in sys.stdin:
        worker.run(TokenizeJob(**json.loads(line)), send)


if __name__ == "__main__":
    try:
        _run_worker()
    except BrokenPipeError:  # `prepare` has ended
        os._exit(1)
