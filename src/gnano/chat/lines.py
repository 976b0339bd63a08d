"""What does a person type? Lines from a terminal, in the way that needs nothing installed."""

import sys
from contextlib import suppress
from typing import Protocol

from gnano.utils.terminal import note

PROMPT, MORE = "> ", "… "


class Lines(Protocol):
    def read(self) -> str:
        """The next text, of one line or several.

        Raises EOFError at its end, and KeyboardInterrupt, with what was typed if that is known.
        """


class PlainLines:
    def __init__(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401  (arrows and earlier lines, where Python has it)

    def read(self) -> str:
        lines = [self._line(PROMPT)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line(MORE))
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        if sys.stdout.isatty():
            return input(prompt)
        note(prompt, end="")  # stdout is for answers
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")
