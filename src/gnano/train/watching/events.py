"""What happened to the run? `events.jsonl`: its starts and ends, what was saved and what failed.

    {"time": "2026-11-25T00:15:06Z", "event": "saved", "step": 1000, "folder": "step-00001000"}

started, saved, not saved, damaged, skipped, rolled back, stopped, finished, failed.
"""

import time
from pathlib import Path
from typing import Any

from gnano.train.watching.log import Log

NAME = "events.jsonl"


class Events:
    """Written by the first rank alone."""

    def __init__(self, run: Path, first: bool = True) -> None:
        self.log = Log(run / NAME) if first else None

    def __call__(self, event: str, **facts: Any) -> None:
        if self.log is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.log.write(time=now, event=event, **facts)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
