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

from gnano.train.watching.log import Log

NAME = "events.jsonl"


class Events:
    """Written by the main rank alone; an end is logged only after a start."""

    def __init__(self, run: Path, first: bool) -> None:
        self.path, self.first = run / NAME, first
        self.log: Log | None = None
        self.running = False

    def write(self, event: str, **facts: Any) -> None:
        if self.first:
            self.log = self.log or Log(self.path)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.log.write(time=now, event=event, **facts)

    def started(self, step: int, steps: int, ranks: int) -> None:
        process = {"pid": os.getpid(), "host": socket.gethostname()}
        self.write("started", step=step, steps=steps, ranks=ranks, **process)
        self.running = True

    def ended(self, step: int, stopped_by: signal.Signals | None) -> None:
        if stopped_by is None:
            self.write("finished", step=step)
        else:
            self.write("stopped", step=step, signal=stopped_by.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.running and isinstance(error, Exception):
            self.write("failed", reason=f"{type(error).__name__}: {error}")
        elif self.running and error is not None:
            self.write("stopped", at_once=True)
        if self.log is not None:
            self.log.close()
