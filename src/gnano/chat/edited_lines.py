"""What does a person type? Texts edited over several lines, with what was typed before at hand.

Enter       ends the text, or after a backslash the line
Alt-Enter   ends the line
Tab         completes a command
Up, Ctrl-R  earlier texts, of earlier sessions too
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from gnano.chat.commands import COMMANDS
from gnano.chat.lines import MORE, PROMPT


class EditedLines:
    def __init__(self) -> None:
        self.session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=MORE,
            key_bindings=_keys(),
            history=Remembered(history_file()),
            completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
            complete_while_typing=False,
        )

    def read(self) -> str:
        return self.session.prompt()


class Remembered(FileHistory):
    """Typed texts in a file, for its owner alone; without one where it cannot be written."""

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError, UnicodeError):
            path = Path(os.fsdecode(self.filename))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            super().store_string(string)


def history_file() -> Path:
    """Under the user's state folder, which by the XDG rules an absolute path may name."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path("~/.local/state")
    with suppress(RuntimeError):  # there is no home
        folder = folder.expanduser()
    return folder / "gnano" / "chat_history"


def _keys() -> KeyBindings:
    keys = KeyBindings()
    here = has_focus(DEFAULT_BUFFER)  # not where an earlier text is searched for

    @keys.add("enter", filter=here)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=here)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c", filter=here)
    def _(event: KeyPressEvent) -> None:
        typed = event.current_buffer.text
        event.app.exit(exception=KeyboardInterrupt(typed), style="class:aborting")

    return keys
