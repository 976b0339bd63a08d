"""What happened to the run? `events.jsonl`: its starts and ends, what was saved and what failed.

    {"time": "2026-11-25T00:15:06Z", "event": "saved", "step": 1000, "folder": "step-00001000"}

started, saved, not saved, damaged, rolled back, stopped, finished, failed.
"""

import os
import signal
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gnano.train.watching.log import Log

NAME = "events.jsonl"


class Events:
    """Written by the first rank alone."""

    def __init__(self, run: Path, first: bool) -> None:
        self.log = Log(run / NAME) if first else None

    def __call__(self, event: str, **facts: Any) -> None:
        if self.log is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.log.write(time=now, event=event, **facts)

    def started(self, step: int, steps: int, ranks: int) -> None:
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        self("started", step=step, steps=steps, ranks=ranks, **who)

    def ended(self, step: int, stopped_by: signal.Signals | None) -> None:
        if stopped_by is None:
            self("finished", step=step)
        else:
            self("stopped", step=step, signal=stopped_by.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            self("failed", reason=f"{type(error).__name__}: {error}")
        elif error is not None:
            self("stopped", at_once=True)
        if self.log is not None:
            self.log.close()
