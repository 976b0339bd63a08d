"""Who sees what? Answers go to stdout, whatever else is said to where it does no harm.

At a terminal notes stand among the answers, dim (with `rich`, which knows what the terminal
can do); otherwise they go to stderr, so that a pipe has the answers alone.
"""

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gnano.utils.terminal import echo, note, takes_color, visible

if TYPE_CHECKING:
    from rich.console import Console


class Screen:
    def __init__(self, interactive: bool) -> None:
        self.beside = interactive and sys.stdout.isatty()  # do notes stand among the answers?
        dim = self.beside and takes_color(sys.stdout) and find_spec("rich")
        self.console = self._console() if dim else None

    def say(self, piece: str) -> None:
        """A piece of an answer."""
        echo(piece, end="")

    def note(self, text: str) -> None:
        """What is no answer."""
        if self.console:
            self.console.print(visible(text, sys.stdout))
        elif self.beside:
            echo(text)
        else:
            note(text)

    def _console(self) -> "Console":
        from rich.console import Console

        return Console(style="dim", markup=False, highlight=False, emoji=False)
