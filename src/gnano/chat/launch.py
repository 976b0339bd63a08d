"""The start of a conversation: a checkpoint, and with it a question, a pipe or a person."""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from gnano.chat.chat_settings import ChatSettings
from gnano.chat.conversation import ChatSession
from gnano.chat.prompt_input import make_line_reader
from gnano.chat.repl import ChatOutput, print_answer, respond_to_line, run_chat_loop
from gnano.checkpoint.format import find_checkpoint
from gnano.config.inference_config import LoadConfig
from gnano.data.sft.chat_template import ALPACA, load_template, read_jinja_template, read_template
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.utils.terminal import echo_stderr as print_to_stderr
from gnano.utils.text import open_stdin

INSTALL_HINT = (
    "pip install 'auto-g-nano[chat]' adds texts edited over several lines, a memory of what you "
    "typed, and dim notes."
)
NOT_TUNED_NOTE = (
    "This checkpoint was not tuned to answer: it is asked in alpaca's format (--format)."
)
UNKNOWN_TEMPLATE_NOTE = (
    "This checkpoint's chat template is none that can be read here: it is asked in alpaca's format "
    "(--format names another)."
)


def open_session(
    checkpoint: Path,
    template_name: str | None,
    settings: ChatSettings,
    system_prompt: str,
    loading: LoadConfig,
) -> tuple[ChatSession, str]:
    """Return the session, and a note about its format; "" for none."""
    given = load_template(template_name) if template_name else None
    folder = find_checkpoint(checkpoint)
    template = given or read_template(folder)
    engine = Engine.load(folder, **asdict(loading))
    note = (
        "" if template else UNKNOWN_TEMPLATE_NOTE if read_jinja_template(folder) else NOT_TUNED_NOTE
    )
    return ChatSession(engine, template or ALPACA, settings, system_prompt), note


def run_chat(session: ChatSession, note: str, prompt: str | None, model_name: str) -> int:
    """Answer one question, a pipe or a person until they end; return the exit code."""
    stdin = open_stdin()
    interactive = prompt is None and stdin.isatty()
    screen = ChatOutput(interactive)
    if note:
        screen.print_note(note)
    if prompt is not None:
        print_answer(session.ask(prompt), session, screen)
        return 0
    if not interactive:
        return answer_piped_lines(stdin, session, screen)
    size = num_parameters(session.engine.model.config)
    screen.print_note(
        f"{model_name} · {size:,} parameters · context {session.context_length:,} · /help"
    )
    if not (find_spec("prompt_toolkit") and find_spec("rich")):
        screen.print_note(INSTALL_HINT)
    run_chat_loop(session, make_line_reader(), screen)
    return 0


def answer_piped_lines(lines: Iterable[str], session: ChatSession, output: ChatOutput) -> int:
    """Answer each line; return 2 if one could not be, which stderr says, and 0 otherwise."""
    code = 0
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                respond_to_line(line.strip(), session, output)
        except EOFError:
            break
        except ValueError as error:
            print_to_stderr(f"gnano: line {number:,}: {error}")
            code = 2
    return code
