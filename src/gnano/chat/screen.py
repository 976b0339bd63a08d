"""Who sees what? Answers go to stdout, whatever else is said to where it does no harm.

At a terminal notes stand among the answers, dim (with `rich`, which knows what the terminal
can do); otherwise they go to stderr, so that a pipe has the answers alone.
"""

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# an answer must not move the cursor or change the terminal's settings
VISIBLE = dict.fromkeys(
    {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)


class Screen:
    def __init__(self, interactive: bool) -> None:
        self.terminal = sys.stdout.isatty()
        self.beside = interactive and self.terminal  # do notes stand among the answers?
        self.console = self._console() if self.beside and find_spec("rich") else None

    def say(self, piece: str) -> None:
        """A piece of an answer."""
        sys.stdout.write(piece.translate(VISIBLE) if self.terminal else piece)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """What is no answer."""
        if self.console:
            self.console.print(text)
        else:
            print(text, file=sys.stdout if self.beside else sys.stderr, flush=True)

    def _console(self) -> "Console":
        from rich.console import Console

        return Console(style="dim", markup=False, highlight=False, emoji=False)
