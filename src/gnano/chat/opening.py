"""Which model talks, in which format, and with whom? From the command line to a conversation."""

import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from gnano.chat.batch import answer_lines, say
from gnano.chat.lines import Lines, PlainLines
from gnano.chat.repl import Repl
from gnano.chat.screen import Screen
from gnano.chat.session import Session
from gnano.chat.settings import Settings
from gnano.data.instructions import ALPACA, load_template, template_of
from gnano.data.instructions.templates import jinja_of
from gnano.infer import Engine, Loading
from gnano.model import num_parameters
from gnano.train import find_checkpoint
from gnano.utils.terminal import takes_escapes
from gnano.utils.text import open_stdin

EXTRA = (
    "pip install 'auto-g-nano[chat]' adds texts edited over several lines, a memory of what you "
    "typed, and dim notes."
)
UNTUNED = "This checkpoint was not tuned to answer: it is asked in alpaca's format (--format)."
FOREIGN = (
    "This checkpoint's chat template is none that can be read here: it is asked in alpaca's format "
    "(--format names another)."
)


def open_session(
    checkpoint: Path,
    format: str | None,
    settings: Settings,
    system: str,
    loading: Loading,
) -> tuple[Session, str]:
    """The session, and what there is to say of its format; "" for nothing."""
    given = load_template(format) if format else None
    folder = find_checkpoint(checkpoint)
    template = given or template_of(folder)
    engine = Engine.load(folder, **asdict(loading))
    note = "" if template else FOREIGN if jinja_of(folder) else UNTUNED
    return Session(engine, template or ALPACA, settings, system), note


def talk(session: Session, note: str, prompt: str | None, name: str) -> int:
    """Until whoever asks has enough: one question, a pipe or a person. Returns the exit code."""
    stdin = open_stdin()
    interactive = prompt is None and stdin.isatty()
    screen = Screen(interactive)
    if note:
        screen.note(note)
    if prompt is not None:
        say(session.ask(prompt), screen)
        return 0
    if not interactive:
        return answer_lines(stdin, session, screen)
    whole = bool(find_spec("prompt_toolkit") and find_spec("rich"))
    size = num_parameters(session.engine.model.config)
    screen.note(f"{name} · {size:,} parameters · context {session.context:,} · /help")
    if not whole:
        screen.note(EXTRA)
    Repl(session, _lines(), screen).run()
    return 0


def _lines() -> Lines:
    if takes_escapes(sys.stdout) and find_spec("prompt_toolkit"):
        from gnano.chat.edited_lines import EditedLines

        return EditedLines()
    return PlainLines()
