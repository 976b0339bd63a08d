"""A chat at a terminal: notes, Ctrl-C, and line input.

Ctrl-C interrupts an answer, then the line being typed, then, pressed twice, the program. With
prompt_toolkit installed, lines can be edited:

    Enter       submits the text, or after a backslash starts a new line
    Alt-Enter   starts a new line
    Tab         completes a command
    Up, Ctrl-R  earlier texts, also of earlier sessions

Without prompt_toolkit: Enter, and earlier texts where Python has readline.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gnano.utils.platform_support import is_installed
from gnano.utils.terminal import (
    CONTROL_CHARACTERS,
    echo,
    echo_stderr,
    supports_color,
    supports_escapes,
)

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


PROMPT, CONTINUATION = "> ", "… "


@dataclass(frozen=True)
class ChatOutput:
    """The destination of notes: stdout at a terminal, otherwise stderr."""

    is_interactive: bool = False
    notes_on_stdout: bool = False
    print_note: Callable[[str], object] = echo_stderr


def open_terminal_output() -> ChatOutput:
    """Return the destination of notes: between the answers, dim if `rich` is installed."""
    if not sys.stdout.isatty():
        return ChatOutput(is_interactive=True)
    if not (supports_color(sys.stdout) and is_installed("rich")):
        return ChatOutput(True, True, echo)
    from rich.console import Console

    console = Console(style="dim", markup=False, highlight=False, emoji=False)
    return ChatOutput(True, True, lambda text: console.print(text.translate(CONTROL_CHARACTERS)))


def respond_to_lines(
    respond: Callable[[str], None], output: ChatOutput, commands: list[str]
) -> None:
    """Respond to typed lines until the user leaves; `commands` can be completed with Tab."""
    read_line = make_line_reader(commands)
    num_interrupts = 0  # Ctrl-C presses in a row on an empty line
    while True:
        try:
            line = read_line()
            num_interrupts = 0
            respond(line)
        except KeyboardInterrupt as interrupt:
            has_text = bool(interrupt.args and interrupt.args[0])
            num_interrupts = 0 if has_text else num_interrupts + 1
            if num_interrupts > 1:
                return
            if num_interrupts == 1:
                output.print_note("Press Ctrl-C again, or Ctrl-D, to leave.")
        except EOFError:
            return
        except ValueError as error:
            output.print_note(str(error))


@contextmanager
def catch_interrupts() -> Iterator[list[int]]:
    """Record Ctrl-C instead of raising, so that a token is computed to its end.

    A second press ends the block immediately, since reading a long prompt cannot be divided.
    """
    presses: list[int] = []

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if presses:
            raise KeyboardInterrupt
        presses.append(number)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield presses
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, previous)


def make_line_reader(commands: list[str]) -> Callable[[], str]:
    """Return the function that reads the next text.

    It raises EOFError at the end of the input, and KeyboardInterrupt with the text typed so far,
    where that is known.
    """
    if supports_escapes(sys.stdout) and is_installed("prompt_toolkit"):
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_key_bindings(),
            history=_file_history(),
            completer=WordCompleter(commands, sentence=True),
            complete_while_typing=False,
        )
        return session.prompt
    with suppress(ImportError):
        import_module("readline")  # enables arrow keys and earlier lines in input()
    return _read_plain_text


def _read_plain_text() -> str:
    text, prompt = "", PROMPT
    while True:
        if sys.stdout.isatty():
            text += input(prompt)
        else:
            echo_stderr(prompt, end="")  # stdout receives only answers
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            text += line.removesuffix("\n")
        if not text.endswith("\\"):
            return text
        text, prompt = text[:-1] + "\n", CONTINUATION


def _file_history() -> "History":
    """Return the history of typed texts, in a file that only its owner can read.

    The file is in XDG_STATE_HOME if that is absolute, else in ~/.local/state. If it cannot be
    written, nothing is kept.
    """
    from prompt_toolkit.history import FileHistory

    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path("~/.local/state")
    with suppress(RuntimeError):  # no home directory
        folder = folder.expanduser()
    path = folder / "gnano" / "chat_history"

    class PrivateHistory(FileHistory):
        def load_history_strings(self) -> Iterable[str]:
            with suppress(OSError):
                return list(super().load_history_strings())
            return []

        def store_string(self, string: str) -> None:
            with suppress(OSError, UnicodeError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
                super().store_string(string)

    return PrivateHistory(path)


def _key_bindings() -> "KeyBindings":
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()
    is_typing = has_focus(DEFAULT_BUFFER)  # and not searching earlier texts

    @bindings.add("enter", filter=is_typing)
    def _(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=is_typing)
    def _(event: "KeyPressEvent") -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-c", filter=is_typing)
    def _(event: "KeyPressEvent") -> None:
        typed = event.current_buffer.text
        event.app.exit(exception=KeyboardInterrupt(typed), style="class:aborting")

    return bindings
