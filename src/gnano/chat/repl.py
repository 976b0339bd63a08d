"""A chat's loop over lines, its slash commands and its output.

Ctrl-C interrupts an answer, then the line being typed, then, pressed twice, the program.
Answers go to stdout. At a terminal, notes are printed between them, dim if `rich` is installed;
otherwise they go to stderr, so that a pipe receives only the answers.
"""

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FrameType

from gnano.chat.conversation import ChatSession, ChatSettings, ConversationHistory
from gnano.chat.prompt_input import make_line_reader
from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import LoadConfig
from gnano.data.sft.chat_template import ALPACA, load_template, read_jinja_template, read_template
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.utils.formatting import plural
from gnano.utils.platform_support import is_installed
from gnano.utils.terminal import CONTROL_CHARACTERS, echo, echo_stderr, supports_color

COMMANDS = {
    "help": ("", "show this list"),
    "reset": ("", "start a new conversation with the same system prompt and settings"),
    "system": ("TEXT", "set the system prompt; without TEXT, remove it"),
    "set": ("NAME VALUE", "change a sampling setting; without arguments, show all"),
    "regen": ("", "answer the last question again"),
    "save": ("FILE", "write the conversation as JSON that `gnano sft` can train on"),
    "load": ("FILE", "continue a saved conversation"),
    "stats": ("", "show token counts, speed, and context use"),
    "quit": ("", "leave (also Ctrl-D)"),
}
MORE_HELP = (
    "Start a question with // to send text that begins with /. Alt-Enter, or \\ at the end of a "
    "line, starts another line. Ctrl-C stops an answer."
)
NOT_TUNED_NOTE = (
    "This checkpoint was not tuned to answer questions; using the Alpaca format (--format)."
)
UNKNOWN_TEMPLATE_NOTE = (
    "This checkpoint's chat template is not supported; using the Alpaca format (--format names "
    "another)."
)
INSTALL_HINT = (
    "For multi-line editing, a history of your questions, and dim notes: "
    "pip install 'auto-g-nano[chat]'."
)


@dataclass(frozen=True)
class ChatOutput:
    """The destination of notes: stdout at a terminal, otherwise stderr."""

    is_interactive: bool = False
    notes_on_stdout: bool = False
    print_note: Callable[[str], object] = echo_stderr


def run_chat(
    checkpoint: Path,
    load_config: LoadConfig,
    settings: ChatSettings,
    format: str | None = None,
    system_prompt: str = "",
    prompt: str | None = None,
) -> int:
    """Answer one prompt, all lines of a pipe, or a user at a terminal; return the exit code.

    `format` names a chat template; None is that of the checkpoint's tuning. The code is 2 if a line
    of a pipe failed, with the reason on stderr.
    """
    template = load_template(format) if format else None
    folder = find_checkpoint(checkpoint)
    template = template or read_template(folder)
    engine = Engine.load(folder, **vars(load_config))
    note = ""
    if template is None:
        note = UNKNOWN_TEMPLATE_NOTE if read_jinja_template(folder) else NOT_TUNED_NOTE
    session = ChatSession(engine, template or ALPACA, settings, system_prompt)
    if prompt is None and sys.stdin.isatty():
        _chat_at_terminal(session, note, str(checkpoint))
        return 0
    if note:
        echo_stderr(note)
    if prompt is not None:
        print_answer(session.ask(prompt), session, ChatOutput())
        return 0
    code = 0
    for number, line in enumerate(sys.stdin, 1):
        try:
            respond_to_line(line, session, ChatOutput())
        except EOFError:
            break
        except ValueError as error:
            echo_stderr(f"gnano: line {number:,}: {error}")
            code = 2
    return code


def _chat_at_terminal(session: ChatSession, note: str, model_name: str) -> None:
    on_stdout = sys.stdout.isatty()
    output = ChatOutput(True, on_stdout, echo if on_stdout else echo_stderr)
    if on_stdout and supports_color(sys.stdout) and is_installed("rich"):
        from rich.console import Console

        console = Console(style="dim", markup=False, highlight=False, emoji=False)
        output = ChatOutput(True, True, lambda t: console.print(t.translate(CONTROL_CHARACTERS)))
    if note:
        output.print_note(note)
    size = num_parameters(session.engine.model.config)
    output.print_note(
        f"{model_name} · {size:,} parameters · context {session.context_length:,} · /help"
    )
    if not (is_installed("prompt_toolkit") and is_installed("rich")):
        output.print_note(INSTALL_HINT)
    read_line = make_line_reader([f"/{name}" for name in COMMANDS])
    num_interrupts = 0  # Ctrl-C presses in a row on an empty line
    while True:
        try:
            line = read_line()
            num_interrupts = 0
            respond_to_line(line, session, output)
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


def respond_to_line(line: str, session: ChatSession, output: ChatOutput) -> None:
    """Answer a question, or run a slash command and print its message.

    Raises ValueError for a mistake in the line, and EOFError for `/quit`.
    """
    line = line.strip()
    if not line:
        return
    if line.startswith("//") or not line.startswith("/"):
        print_answer(session.ask(line.removeprefix("/")), session, output)
        return
    name, argument = (*line[1:].split(maxsplit=1), "", "")[:2]
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=1, cutoff=0)[0]
        raise ValueError(
            f"There is no command /{name}; did you mean /{nearest}? (/help lists all. To send text "
            f"that begins with /, type //{name}.)"
        )
    if COMMANDS[name][0] == "FILE" and not argument:
        raise ValueError(f"/{name} needs a file name: /{name} FILE.")
    match name:
        case "help":
            usages = [(f"/{name} {what}".strip(), text) for name, (what, text) in COMMANDS.items()]
            lines = [f"{usage:<16} {text}" for usage, text in usages]
            output.print_note("\n".join([*lines, MORE_HELP]))
        case "reset":
            session.reset()
            output.print_note("New conversation.")
        case "system":
            session.set_system_prompt(argument)
            applied = "The system prompt applies from the next answer on."
            output.print_note(applied if argument else "No system prompt.")
        case "set":
            output.print_note(_change_setting(argument, session))
        case "regen":
            print_answer(session.regenerate(), session, output)
        case "save":
            output.print_note(f"Saved as {session.history.save(Path(argument))}.")
        case "load":
            session.resume(ConversationHistory.load(Path(argument)))
            count = plural(len(session.history.exchanges), "question")
            output.print_note(f"Loaded {count} with answers.")
        case "stats":
            output.print_note(_format_stats(session))
        case _:
            raise EOFError


def _change_setting(argument: str, session: ChatSession) -> str:
    names = list(vars(session.settings))
    if argument:
        name, _, value = argument.partition(" ")
        if not value.strip():
            raise ValueError(f"/set {name} needs a value: /set {name} VALUE.")
        session.settings = session.settings.with_value(name, value.strip())
        names = [name]
    return "\n".join(f"{name} {session.settings.format_value(name)}" for name in names)


def _format_stats(session: ChatSession) -> str:
    answers = session.answer_stats
    tokens, seconds = sum(s.tokens for s in answers), sum(s.decode_seconds for s in answers)
    # the time of a first token is that of its prompt
    timed = sum(max(s.tokens - 1, 0) for s in answers)
    rate = f" at {timed / seconds:,.1f} tokens/s" if seconds else ""
    context = answers[-1].prompt_tokens + answers[-1].tokens if answers else 0
    return (
        f"answers    {len(answers):,}, {tokens:,} tokens{rate}\n"
        f"prompts    {sum(s.prompt_tokens for s in answers):,} tokens, "
        f"{sum(s.first_token_seconds for s in answers):.2f} s in total until first tokens\n"
        f"context    {context:,} of {session.context_length:,} tokens at the last answer\n"
        f"questions  {len(session.history.exchanges):,} in the conversation, "
        f"{session.num_dropped:,} dropped from the context"
    )


def print_answer(answer: Generator[str], session: ChatSession, output: ChatOutput) -> None:
    """Print an answer that the session has started, and at a terminal its figures."""
    stats = session.answer_stats[-1]
    if stats.exchanges_dropped:
        output.print_note(
            f"Dropped the oldest {plural(stats.exchanges_dropped, 'question')} with answers: the "
            f"context holds {session.context_length:,} tokens."
        )
    interrupts: AbstractContextManager[list[int]] = nullcontext([])
    if output.is_interactive:
        interrupts = _catch_interrupts()
    with interrupts as presses, closing(answer):
        for piece in answer:
            echo(piece, end="")
            if presses:
                break
    echo("")
    if output.notes_on_stdout:
        output.print_note(str(stats))
    if output.is_interactive and not stats.answer:
        output.print_note("The answer is empty and was not kept; /regen answers again.")


@contextmanager
def _catch_interrupts() -> Iterator[list[int]]:
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
