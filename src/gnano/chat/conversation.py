"""A conversation with a model: its settings, its history in a file, and its answers as streams.

A saved conversation is a record that `gnano sft` can train on. An answer that the user stopped has
`"stopped": true`, so that training can leave it out:

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}, …]}

Each prompt is built as in training, from the system prompt and the newest exchanges that leave
space for an answer:

    │ system │ exchange 1 │ exchange 2 │ … │ question │ answer …            │
             └─ dropped first ┘                       └─ at most half of it ┘
"""

import json
from bisect import bisect_left
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from time import perf_counter
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, encode_prompt
from gnano.data.sft.conversations import Turn, parse_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.infer.engine import Engine
from gnano.utils.files import atomic_write_text, dump_json, read_text
from gnano.utils.formatting import plural
from gnano.utils.validation import Range

MIN_STOP_CHARS = 6  # shorter openings of a question, such as "Q:", may be part of an answer
FINISH_NOTES = {"stop": "", "length": "token limit reached", "context": "context full"}


@dataclass(frozen=True, kw_only=True)
class ChatSettings(SamplingParams):
    """The settings that `/set` changes: sampling parameters and the length of answers."""

    tokens: Annotated[int, Range(1, MAX_COUNT)] = 256  # maximum length of an answer

    def with_value(self, name: str, value: str) -> "ChatSettings":
        """Return a copy with one setting parsed from text; `top-k` means `top_k`, `none` None.

        Raises ValueError for an unknown name or a value that does not fit.
        """
        name = name.replace("-", "_")
        kinds = get_type_hints(ChatSettings)
        if name not in kinds:
            raise ValueError(f"There is no setting {name!r}; the settings are {', '.join(kinds)}.")
        is_optional = get_origin(kinds[name]) is UnionType  # int | None
        kind = get_args(kinds[name])[0] if is_optional else kinds[name]
        is_none = value.lower() == "none"
        expected = "a whole number" if kind is int else "a number"
        parsed: Any = None
        try:
            if get_origin(kind) is tuple:
                expected = "pairs of a token and a number, such as 13:-5,42:1.5"
                pairs = [] if is_none else [pair.split(":") for pair in value.split(",")]
                parsed = tuple((int(token), float(number)) for token, number in pairs)
            elif not (is_optional and is_none):
                parsed = kind(value)
        except ValueError:
            raise ValueError(f"{name} is {value!r}; it must be {expected}.") from None
        return replace(self, **{name: parsed})

    def format_value(self, name: str) -> str:
        """Return the value of a setting in the form that `with_value` parses."""
        value = getattr(self, name.replace("-", "_"))
        if isinstance(value, tuple):
            return ",".join(f"{token}:{bias:g}" for token, bias in value) or "none"
        return "none" if value is None else str(value)


@dataclass(frozen=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str  # never empty: an empty answer is not training data
    was_stopped: bool = False  # by the user, before the model ended it


@dataclass(frozen=True)
class ConversationHistory:
    """The system prompt and all exchanges of a conversation."""

    system_prompt: str = ""
    exchanges: tuple[Exchange, ...] = ()

    def save(self, path: Path) -> Path:
        """Write the file and return its path, with `.json` added to a name without a suffix.

        An existing file is replaced only if it holds a conversation. Raises ValueError where
        nothing can be written.
        """
        if not self.exchanges:
            raise ValueError("The conversation is empty; ask a question before you save it.")
        path = _with_suffix(path.expanduser())
        if path.suffix not in (".json", ".jsonl"):
            raise ValueError(f"{path} does not end in .json or .jsonl; choose such a name.")
        if path.exists():
            try:
                ConversationHistory.load(path)
            except ValueError:
                raise ValueError(
                    f"{path} exists and is not a conversation; choose another name."
                ) from None
        system = {"role": "system", "content": self.system_prompt}
        messages: list[dict[str, Any]] = [system] if self.system_prompt else []
        for exchange in self.exchanges:
            messages.append({"role": "user", "content": exchange.question})
            messages.append({"role": "assistant", "content": exchange.answer})
            if exchange.was_stopped:
                messages[-1]["stopped"] = True
        indent = None if path.suffix == ".jsonl" else 2
        text = dump_json({"messages": messages}, ensure_ascii=False, indent=indent)
        try:
            atomic_write_text(path, text + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: Path) -> "ConversationHistory":
        """Read the only conversation of a file, in any format that `gnano sft` reads.

        Raises ValueError where the file has none, or more than one.
        """
        if not (path := path.expanduser()).is_file():
            path = _with_suffix(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            found = read_record_files([str(path)], parse_conversation).records
            if len(found) > 1:
                raise ValueError(f"it holds {len(found):,} conversations instead of one")
            stopped = _stopped_answers(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:
            reason = shorten(str(error), 250, placeholder=" …").rstrip(".")
            raise ValueError(f"{path} cannot be loaded: {reason}.") from None
        turns = list(found[0].turns)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        pairs = enumerate(zip(turns[::2], turns[1::2], strict=True))
        exchanges = (
            Exchange(f"{user.content}\n\n{user.context}".strip(), assistant.content, n in stopped)
            for n, (user, assistant) in pairs
        )
        return cls(system, tuple(exchanges))


def _with_suffix(path: Path) -> Path:
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.json")


def _stopped_answers(path: Path) -> set[int]:
    """Return the numbers of the answers that were stopped; only files of ours state this."""
    try:
        messages = json.loads(read_text(path))["messages"]
        answers = [entry for entry in messages if entry["role"] == "assistant"]
        return {number for number, entry in enumerate(answers) if entry.get("stopped")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


class ChatSession:
    """A conversation with an engine; it needs no terminal."""

    def __init__(
        self,
        engine: Engine,
        template: ChatTemplate = ALPACA,
        settings: ChatSettings | None = None,
        system_prompt: str = "",
    ) -> None:
        self.engine, self.template = engine, template
        self.settings = settings or ChatSettings()
        self.context_length = engine.model.config.block_size
        self.batch = engine.new_batch(reuse_prefix=True)
        # a model that did not learn to end its answer continues with the opening of a question
        opening = template.user.partition("{content}")[0].strip().partition("\n")[0].strip()
        self.stop_strings = (opening,) if len(opening) >= MIN_STOP_CHARS else ()
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
