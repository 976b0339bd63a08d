"""The start of a chat: loads a checkpoint, then answers one question, a pipe, or a terminal."""

from dataclasses import asdict
from pathlib import Path

from gnano.chat.conversation import ChatSession, ChatSettings
from gnano.chat.prompt_input import make_line_reader
from gnano.chat.repl import ChatOutput, answer_piped_lines, print_answer, run_chat_loop
from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import LoadConfig
from gnano.data.sft.chat_template import ALPACA, load_template, read_jinja_template, read_template
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.utils.files import open_stdin
from gnano.utils.platform_support import is_installed

INSTALL_HINT = (
    "For multi-line editing, a history of your questions, and dim notes: "
    "pip install 'auto-g-nano[chat]'."
)
NOT_TUNED_NOTE = (
    "This checkpoint was not tuned to answer questions; using the Alpaca format (--format)."
)
UNKNOWN_TEMPLATE_NOTE = (
    "This checkpoint's chat template is not supported; using the Alpaca format (--format names "
    "another)."
)


def open_session(
    checkpoint: Path,
    template_name: str | None,
    settings: ChatSettings,
    system_prompt: str,
    loading: LoadConfig,
) -> tuple[ChatSession, str]:
    """Return the session and a note about its chat template; "" for none."""
    template = load_template(template_name) if template_name else None
    folder = find_checkpoint(checkpoint)
    template = template or read_template(folder)
    engine = Engine.load(folder, **asdict(loading))
    note = ""
    if template is None:
        note = UNKNOWN_TEMPLATE_NOTE if read_jinja_template(folder) else NOT_TUNED_NOTE
    return ChatSession(engine, template or ALPACA, settings, system_prompt), note


def run_chat(session: ChatSession, note: str, prompt: str | None, model_name: str) -> int:
    """Answer one prompt, all lines of a pipe, or a user at a terminal; return the exit code."""
    stdin = open_stdin()
    interactive = prompt is None and stdin.isatty()
    output = ChatOutput(interactive)
    if note:
        output.print_note(note)
    if prompt is not None:
        print_answer(session.ask(prompt), session, output)
        return 0
    if not interactive:
        return answer_piped_lines(stdin, session, output)
    size = num_parameters(session.engine.model.config)
    output.print_note(
        f"{model_name} · {size:,} parameters · context {session.context_length:,} · /help"
    )
    if not (is_installed("prompt_toolkit") and is_installed("rich")):
        output.print_note(INSTALL_HINT)
    run_chat_loop(session, make_line_reader(), output)
    return 0
