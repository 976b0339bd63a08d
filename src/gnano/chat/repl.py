"""The conversation with a person: lines in, answers and notes out, until they leave.

Ctrl-C stops what runs: an answer; then the line that is being typed; then, twice, the program.
Answers go to stdout. At a terminal notes are printed between them, dim (with `rich`, which knows
what the terminal can do); otherwise they go to stderr, so that a pipe has the answers alone.
"""

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from importlib.util import find_spec
from types import FrameType

from gnano.chat.commands import perform
from gnano.chat.session import Session
from gnano.utils.terminal import echo, note, takes_color, visible


class Screen:
    """Where notes are printed: `note(text)`."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive  # is it for a person?
        self.beside = interactive and sys.stdout.isatty()  # are notes between the answers?
        self.note: Callable[[str], object] = echo if self.beside else note
        if self.beside and takes_color(sys.stdout) and find_spec("rich"):
            from rich.console import Console

            console = Console(style="dim", markup=False, highlight=False, emoji=False)
            self.note = lambda text: console.print(visible(text, sys.stdout))


def run_repl(session: Session, read_line: Callable[[], str], screen: Screen) -> None:
    """Respond to lines until the person leaves.

    `read_line` raises EOFError at the end of the input, and KeyboardInterrupt, with what was typed
    if that is known.
    """
    presses = 0  # of Ctrl-C in a row, on a line without text
    while True:
        try:
            line = read_line().strip()
            presses = 0
            if line:
                respond(line, session, screen)
        except KeyboardInterrupt as interrupt:
            typed = bool(interrupt.args and interrupt.args[0])
            presses = 0 if typed else presses + 1
            if presses > 1:
                return
            if presses == 1:
                screen.note("Ctrl-C again, or Ctrl-D, leaves.")
        except EOFError:
            return
        except ValueError as error:
            screen.note(str(error))


def respond(line: str, session: Session, screen: Screen) -> None:
    """Answer a question, or run a command; raises what `perform` does."""
    result = perform(line, session)
    if isinstance(result, str):
        screen.note(result)
    else:
        print_answer(result, session, screen)


def print_answer(answer: Generator[str], session: Session, screen: Screen) -> None:
    """Print an answer that the session has started, on lines of its own."""
    speech = session.speeches[-1]
    if forgotten := speech.forgotten(session.context):
        screen.note(forgotten)
    interrupts = _catch_interrupts() if screen.interactive else nullcontext(lambda: False)
    with interrupts as interrupted, closing(answer):
        for piece in answer:
            echo(piece, end="")
            if interrupted():
                break
    echo("")
    if screen.beside:
        screen.note(str(speech))
    if screen.interactive and not speech.answer:
        screen.note("Nothing was said, so nothing is remembered; /regen asks again.")


@contextmanager
def _catch_interrupts() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C was pressed, which is only noted, so that a token is computed whole.

    A second press ends the block at once: a long prompt is read in one go.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
