"""One line that shows where long work stands: rewritten in a terminal, sparse in a log."""

import shutil
import sys
import time
from typing import TextIO

LOG_EVERY = 15.0  # seconds between lines where the output is not a terminal


class LiveLine:
    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.shown = 0.0
        self.open = False

    def show(self, text: str, important: bool = False) -> None:
        """Replace the line; a log gets it only now and then, or if it is important."""
        now = time.monotonic()
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r{text[:width]:<{width}}")
            self.open = True
        elif important or now - self.shown >= LOG_EVERY:
            self.stream.write(text + "\n")
        else:
            return
        self.shown = now
        self.stream.flush()

    def note(self, text: str) -> None:
        """A line that stays."""
        self.close()
        self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """End the line, so that what is printed next starts on its own."""
        if self.open:
            self.stream.write("\n")
            self.stream.flush()
            self.open = False


def clock(seconds: float) -> str:
    """42 -> '0:42', 3725 -> '1:02:05'."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
