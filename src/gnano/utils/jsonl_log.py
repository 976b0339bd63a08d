"""JSON-lines logs of a run: `metrics.jsonl` and `events.jsonl`, written append-only and read back.

    {"time": "2026-11-25T00:15:06Z", "event": "saved", "step": 1000, "folder": "step-00001000"}

Events: started, saved, not saved, damaged, rolled back, stopped, finished, failed.

A line that cannot be written, on a full disk for example, is kept and written before the next one,
so the log has a gap only if the process ends before there is space. A line that a kill tore in the
middle stays as a line of its own, which readers skip.

A run that is killed and resumed restarts from its last checkpoint, so `metrics.jsonl` holds some
steps twice, and the line that was being written may be torn:

    {"step": 7, "loss": 5.20, …}
    {"step": 8, "loss": 5.1                  torn: skipped
    {"step": 7, "loss": 5.21, …}             the later line counts
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gnano.utils.files import dump_json

EVENTS_FILE = "events.jsonl"
ROW_PREFIX = '{"step"'  # the start of every line of metrics


@dataclass
class EventLog:
    """The log of events, written by the main rank only; an end is logged only after a start."""

    run: Path
    is_main: bool
    writer: "JsonLinesWriter | None" = None
    has_started: bool = False

    @classmethod
    @contextmanager
    def of_run(cls, run: Path, is_main: bool) -> Iterator[Self]:
        """Yield the log of a run; an error, or what else ends the block early, is an event."""
        log = cls(run, is_main)
        try:
            yield log
        except BaseException as error:
            if log.has_started and isinstance(error, Exception):
                log.log("failed", reason=f"{type(error).__name__}: {error}")
            elif log.has_started:
                log.log("stopped", at_once=True)
            raise
        finally:
            if log.writer is not None:
                log.writer.close()

    def log(self, event: str, **facts: Any) -> None:
        """Append an event with the current time; a start names its process too."""
        if event == "started":
            self.has_started = True
            facts |= {"pid": os.getpid(), "host": socket.gethostname()}
        if self.is_main:
            self.writer = self.writer or JsonLinesWriter(self.run / EVENTS_FILE)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.writer.write(time=now, event=event, **facts)


class JsonLinesWriter:
    """Appends JSON objects to a file; `last_error` is why the last line is not written yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: int | None = None
        self.pending = b""
        self.last_error: OSError | None = None
        self.flush()

    def write(self, **values: Any) -> bool:
        """Append a line; return False where it has to wait, for the reason `last_error`."""
        self.pending += dump_json(values).encode() + b"\n"
        return self.flush()

    def flush(self) -> bool:
        """Write the pending lines; return whether none is left."""
        try:
            if self.file is None:
                # unbuffered: half of a line that failed must not be written again with a later one
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                file = os.open(self.path, flags, 0o644)
                size = os.fstat(file).st_size
                if size and os.pread(file, 1, size - 1) != b"\n":
                    self.pending = b"\n" + self.pending
                self.file = file
            while self.pending:
                self.pending = self.pending[os.write(self.file, self.pending) :]
            self.last_error = None
        except OSError as error:
            self.last_error = OSError(error.errno, error.strerror, str(self.path))
        return not self.pending

    def close(self) -> int:
        """Flush, close the file and return how many lines could not be written."""
        self.flush()
        if self.file is not None:
            os.close(self.file)
        return self.pending.count(b"\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`, one per step, in the order of the steps.

    Raises FileNotFoundError if there is no such file, ValueError if it holds no complete line yet.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give the metrics.jsonl inside a run's folder, "
            f"or start the run first."
        )
    rows: dict[int, dict[str, Any]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # a torn line has no newline, so the resumed run may have appended to it: only the part
            # after the last start can be complete
            try:
                row = json.loads(line[max(line.rfind(ROW_PREFIX), 0) :])
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(step := row.get("step"), int):
                # a line without a loss adds to its step (a late evaluation); it replaces nothing
                rows[step] = row if "loss" in row else {**rows.get(step, {}), **row}
    if not rows:
        raise ValueError(
            f"{path} holds no finished step yet: wait for the run's first step, then try again."
        )
    return [rows[step] for step in sorted(rows)]
