"""One line that shows where long work stands: rewritten in a terminal, sparse in a log."""

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
    """The line, or the few lines, that a person watches; where they cannot be written, nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.is_terminal = supports_escapes(self.stream)
        self.last_shown = -LOG_INTERVAL
        self.height = 0  # lines on the terminal that the next ones replace

    def update(self, text: str, important: bool = False) -> None:
        """Replace what is shown; a log gets it on one line, now and then or if it is important."""
        now = time.monotonic()
        lines = text.translate(CONTROL_CHARACTERS).split("\n")
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            up = f"\x1b[{self.height - 1}A" if self.height > 1 else ""
            # each line is cleared to its end, then what was below them
            body = "\n".join(f"{truncate_parts(line, width)}\x1b[K" for line in lines)
            write_or_drop(self.stream, f"\r{up}{body}\x1b[J")
            self.height = len(lines)
        elif important or now - self.last_shown >= LOG_INTERVAL:
            write_or_drop(self.stream, " · ".join(line.strip() for line in lines) + "\n")
        else:
            return
        self.last_shown = now

    def print(self, text: str) -> None:
        """A line that stays."""
        self.close()
        write_or_drop(self.stream, text.translate(CONTROL_CHARACTERS) + "\n")

    def close(self) -> None:
        """End the line, so that what is printed next starts on its own."""
        if self.height:
            write_or_drop(self.stream, "\n")
            self.height = 0


def truncate_parts(line: str, width: int) -> str:
    """As many of the parts between " · " as the width takes; a number cut short would mislead."""
    while len(line) > width and " · " in line:
        line = line.rsplit(" · ", 1)[0]
    return line[:width]


def format_clock(seconds: float) -> str:
    """42 -> '0:42', 3725 -> '1:02:05'."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
