"""A chat: from a line to an answer or the result of a slash command, and to what is printed.

Answers go to stdout, so that a pipe receives only these; notes go to stderr, or at a terminal
between the answers.

Each prompt is built as in training, from the system prompt and the newest exchanges that leave
space for an answer:

    │ system │ exchange 1 │ exchange 2 │ … │ question │ answer …            │
             └─ dropped first ┘                       └─ at most half of it ┘
"""

import sys
import tomllib
from bisect import bisect_left
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from gnano.chat.conversation import ChatSettings, ConversationHistory, Exchange
from gnano.chat.terminal_chat import (
    ChatOutput,
    catch_interrupts,
    open_terminal_output,
    respond_to_lines,
)
from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import LoadConfig
from gnano.data.sft.chat_template import (
    ALPACA,
    AnyTemplate,
    load_template,
    read_template,
    template_stop_strings,
)
from gnano.data.sft.conversations import Turn
from gnano.data.sft.encoding import encode_prompt
from gnano.infer.engine import Engine
from gnano.infer.prefix_cache import PrefixCache
from gnano.model.flops import num_parameters
from gnano.utils.formatting import plural
from gnano.utils.platform_support import is_installed
from gnano.utils.terminal import echo, echo_stderr

TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("texts.toml").read_text("utf-8"))
COMMANDS: dict[str, tuple[str, str]] = TEXTS["commands"]  # name: argument, summary
FINISH_NOTES = {"stop": "", "length": "token limit reached", "context": "context full"}


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
    template: AnyTemplate | None = load_template(format) if format else None
    folder = find_checkpoint(checkpoint)
    template = template or read_template(folder)
    engine = Engine.load(folder, **vars(load_config))
    note = "" if template else TEXTS["not_tuned"]
    session = ChatSession(engine, template or ALPACA, settings, system_prompt)
    is_interactive = prompt is None and sys.stdin.isatty()
    output = open_terminal_output() if is_interactive else ChatOutput()
    if note:
        output.print_note(note)
    if is_interactive:
        parameters = f"{num_parameters(engine.model.config):,} parameters"
        output.print_note(
            f"{checkpoint} · {parameters} · context {session.context_length:,} · /help"
        )
        if not (is_installed("prompt_toolkit") and is_installed("rich")):
            output.print_note(TEXTS["install_hint"])
        respond = partial(respond_to_line, session=session, output=output)
        respond_to_lines(respond, output, [f"/{name}" for name in COMMANDS])
        return 0
    if prompt is not None:
        print_answer(session.ask(prompt), session, output)
        return 0
    code = 0
    for number, line in enumerate(sys.stdin, 1):
        try:
            respond_to_line(line, session, output)
        except EOFError:
            break
        except ValueError as error:
            echo_stderr(f"gnano: line {number:,}: {error}")
            code = 2
    return code


def respond_to_line(line: str, session: "ChatSession", output: ChatOutput) -> None:
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
            output.print_note("\n".join([*lines, TEXTS["more_help"]]))
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


def _change_setting(argument: str, session: "ChatSession") -> str:
    names = list(vars(session.settings))
    if argument:
        name, _, value = argument.partition(" ")
        if not value.strip():
            raise ValueError(f"/set {name} needs a value: /set {name} VALUE.")
        session.settings = session.settings.with_value(name, value.strip())
        names = [name]
    return "\n".join(f"{name} {session.settings.format_value(name)}" for name in names)


def _format_stats(session: "ChatSession") -> str:
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


def print_answer(answer: Generator[str], session: "ChatSession", output: ChatOutput) -> None:
    """Print an answer that the session has started, and at a terminal its figures."""
    stats = session.answer_stats[-1]
    if stats.exchanges_dropped:
        output.print_note(
            f"Dropped the oldest {plural(stats.exchanges_dropped, 'question')} with answers: the "
            f"context holds {session.context_length:,} tokens."
        )
    interrupts: AbstractContextManager[list[int]] = nullcontext([])
    if output.is_interactive:
        interrupts = catch_interrupts()
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


class ChatSession:
    """A conversation with an engine; it needs no terminal."""

    def __init__(
        self,
        engine: Engine,
        template: AnyTemplate = ALPACA,
        settings: ChatSettings | None = None,
        system_prompt: str = "",
    ) -> None:
        self.engine, self.template = engine, template
        self.settings = settings or ChatSettings()
        self.context_length = engine.model.config.block_size
        self.batch = engine.new_batch(prefix_cache=PrefixCache())
        self.stop_strings = template_stop_strings(template)
        self.answer_stats: list[AnswerStats] = []  # of all answers, dropped ones included
        self.resume(ConversationHistory(_clean(system_prompt)))

    def resume(self, history: ConversationHistory) -> None:
        """Continue this conversation."""
        self.history = history
        self.num_dropped = 0  # oldest exchanges that the model no longer sees
        # the last question, answered or not
        self.last_question = history.exchanges[-1].question if history.exchanges else ""
        self.num_before_question = max(len(history.exchanges) - 1, 0)  # exchanges before it
        self.num_retries = 0  # answers to it after the first

    def reset(self) -> None:
        """Start a new conversation with the same system prompt and settings."""
        self.resume(ConversationHistory(self.history.system_prompt))

    def set_system_prompt(self, system_prompt: str) -> None:
        """Set the system prompt; "" for none."""
        self.history = replace(self.history, system_prompt=_clean(system_prompt))

    def ask(self, text: str, num_retries: int = 0) -> Generator[str]:
        """Return the answer as a stream, one piece per token; a piece may be empty.

        The exchange enters the history when the generator ends, as stopped if it was closed
        before; a retry replaces the last one. Raises ValueError, before the first piece, for a
        question that does not fit in the context; the session stays usable.
        """
        question = _clean(text)
        if not question:
            raise ValueError("The question is empty; type one.")
        num_before = self.num_before_question if num_retries else len(self.history.exchanges)

        def encode(first: int) -> list[int]:
            system_prompt = self.history.system_prompt
            turns = [Turn("system", system_prompt)] if system_prompt else []
            for exchange in self.history.exchanges[first:num_before]:
                turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
            turns.append(Turn("user", question))
            return encode_prompt(turns, self.template, self.engine.tokenizer)

        shortest = len(encode(num_before))
        if shortest > self.context_length:
            system = " with the system prompt" if self.history.system_prompt else ""
            raise ValueError(
                f"The question{system} has {shortest:,} tokens, and the model's context is "
                f"{self.context_length:,}; shorten it."
            )
        # an answer has at most half of the context, as in `evals/`
        budget = max(self.context_length - self.settings.tokens, self.context_length // 2)
        # a dropped exchange never returns: what the model sees would otherwise alternate
        firsts = range(self.num_dropped, num_before)
        dropped_now = bisect_left(firsts, True, key=lambda n: len(encode(n)) <= budget)
        self.num_dropped += dropped_now
        self.last_question, self.num_before_question = question, num_before
        self.num_retries = num_retries
        prompt_ids = encode(self.num_dropped)
        self.answer_stats.append(AnswerStats(len(prompt_ids), dropped_now))
        return self._generate(prompt_ids, self.answer_stats[-1])

    def regenerate(self) -> Generator[str]:
        """Return another answer to the last question, which replaces the previous one."""
        if not self.last_question:
            raise ValueError("There is no question to answer again; ask one first.")
        return self.ask(self.last_question, self.num_retries + 1)

    def _generate(self, prompt_ids: list[int], stats: "AnswerStats") -> Generator[str]:
        start, sampling = perf_counter(), self.settings
        if sampling.seed is not None:  # a retry differs, and a seed still determines the session
            sampling = replace(sampling, seed=(sampling.seed + self.num_retries) % 2**63)
        space = ""  # white space at the end, which is part of the answer only if more follows
        try:
            for text, sequence in self.engine.stream(
                prompt_ids, sampling.tokens, sampling, self.stop_strings, batch=self.batch
            ):
                if len(sequence.output_ids) > stats.tokens:
                    seconds = perf_counter() - start
                    stats.first_token_seconds = stats.first_token_seconds or seconds
                    stats.tokens = len(sequence.output_ids)
                    stats.decode_seconds = seconds - stats.first_token_seconds
                if sequence.finish_reason:
                    stats.finish_note = FINISH_NOTES[sequence.finish_reason]
                text = space + text if stats.answer else text.lstrip()
                piece = text.rstrip()
                space = text[len(piece) :]
                stats.answer += piece
                yield piece
        finally:
            if stats.answer:  # an empty answer leaves an earlier one in place
                stopped = stats.finish_note == "stopped"
                exchange = Exchange(self.last_question, stats.answer, stopped)
                exchanges = (*self.history.exchanges[: self.num_before_question], exchange)
                self.history = replace(self.history, exchanges=exchanges)


@dataclass
class AnswerStats:
    """Length and speed of an answer, and why it ended."""

    prompt_tokens: int
    exchanges_dropped: int = 0  # from the context, to make space for this answer
    answer: str = ""
    tokens: int = 0  # of the answer
    finish_note: str = "stopped"  # until it ends otherwise; "" if the model ended it
    first_token_seconds: float = 0.0
    decode_seconds: float = 0.0  # from the first token to the last

    def __str__(self) -> str:
        parts = [plural(self.tokens, "token")]
        if self.tokens > 1 and self.decode_seconds:
            parts.append(f"{(self.tokens - 1) / self.decode_seconds:,.1f} tokens/s")
        if self.tokens:
            parts.append(f"first after {self.first_token_seconds:.2f} s")
        return " · ".join([*parts, *filter(None, [self.finish_note])])


def _clean(text: str) -> str:
    """Return the text without surrounding white space and without what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
