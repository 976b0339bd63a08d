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

from gnano.chat.conversation import ChatSession
from gnano.chat.slash_commands import run_line
from gnano.utils.terminal import echo, echo_stderr, replace_controls, supports_color


class ChatOutput:
    """Where notes are printed: `note(text)`."""

    def __init__(self, is_interactive: bool) -> None:
        self.is_interactive = is_interactive  # is it for a person?
        self.notes_on_stdout = (
            is_interactive and sys.stdout.isatty()
        )  # are notes between the answers?
        self.print_note: Callable[[str], object] = echo if self.notes_on_stdout else echo_stderr
        if self.notes_on_stdout and supports_color(sys.stdout) and find_spec("rich"):
            from rich.console import Console

            console = Console(style="dim", markup=False, highlight=False, emoji=False)
            self.print_note = lambda text: console.print(replace_controls(text, sys.stdout))


def run_chat_loop(session: ChatSession, read_line: Callable[[], str], output: ChatOutput) -> None:
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
                respond_to_line(line, session, output)
        except KeyboardInterrupt as interrupt:
            typed = bool(interrupt.args and interrupt.args[0])
            presses = 0 if typed else presses + 1
            if presses > 1:
                return
            if presses == 1:
                output.print_note("Ctrl-C again, or Ctrl-D, leaves.")
        except EOFError:
            return
        except ValueError as error:
            output.print_note(str(error))


def respond_to_line(line: str, session: ChatSession, output: ChatOutput) -> None:
    """Answer a question, or run a command; raises what `perform` does."""
    result = run_line(line, session)
    if isinstance(result, str):
        output.print_note(result)
    else:
        print_answer(result, session, output)


def print_answer(answer: Generator[str], session: ChatSession, output: ChatOutput) -> None:
    """Print an answer that the session has started, on lines of its own."""
    speech = session.answer_stats[-1]
    if forgotten := speech.truncation_notice(session.context_length):
        output.print_note(forgotten)
    interrupts = _catch_interrupts() if output.is_interactive else nullcontext(lambda: False)
    with interrupts as interrupted, closing(answer):
        for piece in answer:
            echo(piece, end="")
            if interrupted():
                break
    echo("")
    if output.notes_on_stdout:
        output.print_note(str(speech))
    if output.is_interactive and not speech.answer:
        output.print_note("Nothing was said, so nothing is remembered; /regen asks again.")


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
