"""A status line for long work: rewritten in place in a terminal, printed sparsely in a log."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from gnano.utils.streams import write_or_drop
from gnano.utils.terminal import CONTROL_CHARACTERS, supports_escapes

LOG_INTERVAL = 15.0  # seconds between lines where the output is not a terminal


class StatusLine:
    """One or several lines that show progress; where they cannot be written, nothing happens."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.is_terminal = supports_escapes(self.stream)
        self.last_shown = -LOG_INTERVAL
        self.height = 0  # lines on the terminal that the next ones replace

    def update(self, text: str, important: bool = False) -> None:
        """Replace what is shown; a log gets one line every 15 s, or if it is important."""
        now = time.monotonic()
        lines = text.translate(CONTROL_CHARACTERS).split("\n")
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            up = f"\x1b[{self.height - 1}A" if self.height > 1 else ""
            # each line is cleared to its end, then everything below them
            body = "\n".join(f"{truncate_parts(line, width)}\x1b[K" for line in lines)
            write_or_drop(self.stream, f"\r{up}{body}\x1b[J")
            self.height = len(lines)
        elif important or now - self.last_shown >= LOG_INTERVAL:
            write_or_drop(self.stream, " · ".join(line.strip() for line in lines) + "\n")
        else:
            return
        self.last_shown = now

    def print(self, text: str) -> None:
        """Print a line that is not replaced."""
        self.close()
        write_or_drop(self.stream, text.translate(CONTROL_CHARACTERS) + "\n")

    def close(self) -> None:
        """End the line, so that the next output starts on a new one."""
        if self.height:
            write_or_drop(self.stream, "\n")
            self.height = 0


def truncate_parts(line: str, width: int) -> str:
    """Drop " · "-separated parts until the line fits: a truncated number would mislead."""
    while len(line) > width and " · " in line:
        line = line.rsplit(" · ", 1)[0]
    return line[:width]


def format_clock(seconds: float) -> str:
    """Return 42 as "0:42" and 3725 as "1:02:05"."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
