"""The events of a run in `events.jsonl`: starts and ends, what was saved and what failed.

    {"time": "2026-11-25T00:15:06Z", "event": "saved", "step": 1000, "folder": "step-00001000"}

started, saved, not saved, damaged, rolled back, stopped, finished, failed.
"""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Self

from gnano.train.watching.log import JsonLinesWriter

EVENTS_FILE = "events.jsonl"


class EventLog:
    """Written by the main rank alone; an end is logged only after a start."""

    def __init__(self, run: Path, is_main: bool) -> None:
        self.path, self.is_main = run / EVENTS_FILE, is_main
        self.writer: JsonLinesWriter | None = None
        self.has_started = False

    def log(self, event: str, **facts: Any) -> None:
        if self.is_main:
            self.writer = self.writer or JsonLinesWriter(self.path)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.writer.write(time=now, event=event, **facts)

    def log_start(self, step: int, total_steps: int, world_size: int) -> None:
        process = {"pid": os.getpid(), "host": socket.gethostname()}
        self.log("started", step=step, steps=total_steps, ranks=world_size, **process)
        self.has_started = True

    def log_end(self, step: int, stopped_by: signal.Signals | None) -> None:
        if stopped_by is None:
            self.log("finished", step=step)
        else:
            self.log("stopped", step=step, signal=stopped_by.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.has_started and isinstance(error, Exception):
            self.log("failed", reason=f"{type(error).__name__}: {error}")
        elif self.has_started and error is not None:
            self.log("stopped", at_once=True)
        if self.writer is not None:
            self.writer.close()
