"""The start of a conversation: a checkpoint, and with it a question, a pipe or a person."""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from gnano.chat.lines import line_reader
from gnano.chat.repl import Screen, print_answer, respond, run_repl
from gnano.chat.session import Session
from gnano.chat.settings import Settings
from gnano.data.instructions.templates import ALPACA, jinja_of, load_template, template_of
from gnano.infer.engine import Engine
from gnano.infer.loading import Loading
from gnano.model.arithmetic import num_parameters
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.terminal import note as print_to_stderr
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
    """Return the session, and a note about its format; "" for none."""
    given = load_template(format) if format else None
    folder = find_checkpoint(checkpoint)
    template = given or template_of(folder)
    engine = Engine.load(folder, **asdict(loading))
    note = "" if template else FOREIGN if jinja_of(folder) else UNTUNED
    return Session(engine, template or ALPACA, settings, system), note


def talk(session: Session, note: str, prompt: str | None, name: str) -> int:
    """Answer one question, a pipe or a person until they end; return the exit code."""
    stdin = open_stdin()
    interactive = prompt is None and stdin.isatty()
    screen = Screen(interactive)
    if note:
        screen.note(note)
    if prompt is not None:
        print_answer(session.ask(prompt), session, screen)
        return 0
    if not interactive:
        return answer_lines(stdin, session, screen)
    size = num_parameters(session.engine.model.config)
    screen.note(f"{name} · {size:,} parameters · context {session.context:,} · /help")
    if not (find_spec("prompt_toolkit") and find_spec("rich")):
        screen.note(EXTRA)
    run_repl(session, line_reader(), screen)
    return 0


def answer_lines(lines: Iterable[str], session: Session, screen: Screen) -> int:
    """Answer each line; return 2 if one could not be, which stderr says, and 0 otherwise."""
    code = 0
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                respond(line.strip(), session, screen)
        except EOFError:
            break
        except ValueError as error:
            print_to_stderr(f"gnano: line {number:,}: {error}")
            code = 2
    return code
