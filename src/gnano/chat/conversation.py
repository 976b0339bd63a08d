"""The questions and answers of a conversation: turns for the model, messages in a file.

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}, …]}

The file is a record that `gnano sft` learns from. An answer that was stopped has
`"stopped": true` beside its text, so that whoever learns from it can leave it out.

A conversation without a terminal: it takes questions and gives answers in pieces.

Each prompt is built as in training, from the system's turn and the newest exchanges that leave
room for an answer:

    │ system │ exchange 1 │ exchange 2 │ … │ question │ answer …          │
             └── fall out ──┘                          └─ at most half ─┘
"""

import json
from bisect import bisect_left
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from time import perf_counter
from typing import Any, Literal

from gnano.chat.chat_settings import ChatSettings
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, encode_prompt
from gnano.data.sft.conversations import Turn
from gnano.data.sft.record_loading import read_conversation_files
from gnano.infer.engine import Engine, IncrementalDetokenizer
from gnano.utils.atomic_io import atomic_write_text
from gnano.utils.text import dump_json, read_text

FILE_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str  # never empty: what says nothing is no training data
    was_stopped: bool = False  # by the user, before the model ended it


@dataclass(frozen=True)
class ConversationHistory:
    system_prompt: str = ""  # what the model is told before the first question
    exchanges: tuple[Exchange, ...] = ()

    def to_turns(self) -> tuple[Turn, ...]:
        """Return the turns of which a prompt is made."""
        turns = [Turn("system", self.system_prompt)] if self.system_prompt else []
        for exchange in self.exchanges:
            turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
        return tuple(turns)

    def save(self, path: Path) -> Path:
        """Write the file and return its path; raises ValueError, in a sentence, on failure.

        A file that is there is replaced if it holds a conversation, and only then.
        """
        if not self.exchanges:
            raise ValueError("Nothing was said yet that could be saved; ask something first.")
        path = _with_suffix(path.expanduser())
        if path.suffix not in FILE_SUFFIXES:
            raise ValueError(f"{path} is no name for a conversation; end it in .json.")
        if path.exists():
            try:
                ConversationHistory.load(path)
            except ValueError:
                raise ValueError(
                    f"{path} exists and holds something else than a conversation; choose another "
                    f"name."
                ) from None
        messages: list[dict[str, Any]] = [
            {"role": turn.role, "content": turn.content} for turn in self.to_turns()
        ]
        answers = (message for message in messages if message["role"] == "assistant")
        for message, exchange in zip(answers, self.exchanges, strict=True):
            if exchange.was_stopped:
                message["stopped"] = True
        indent = None if path.suffix == ".jsonl" else 2
        text = dump_json({"messages": messages}, ensure_ascii=False, indent=indent)
        try:
            atomic_write_text(path, text + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: Path) -> "ConversationHistory":
        """Read the one conversation of a file, of any form that `gnano sft` reads.

        Raises ValueError, in a sentence, where there is none, or more.
        """
        path = path.expanduser()
        path = path if path.is_file() else _with_suffix(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            found = read_conversation_files([str(path)]).records
            if len(found) > 1:
                raise ValueError(f"it holds {len(found):,} conversations, and one can go on")
            stopped = _stopped_answers(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:
            reason = shorten(str(error), 250, placeholder=" …").rstrip(".")
            raise ValueError(f"{path} cannot be loaded: {reason}.") from None
        turns = list(found[0].turns)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        exchanges: list[Exchange] = []
        for asked, answer in zip(turns[::2], turns[1::2], strict=True):
            question = f"{asked.content}\n\n{asked.context}".strip()
            exchanges.append(Exchange(question, answer.content, len(exchanges) in stopped))
        return cls(system, tuple(exchanges))


def _with_suffix(path: Path) -> Path:
    """Return the file that a person means who leaves out `.json`."""
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.json")


def _stopped_answers(path: Path) -> set[int]:
    """Return the numbers of the answers that were stopped; other programs' files do not say."""
    try:
        messages = json.loads(read_text(path))["messages"]
        answers = [entry for entry in messages if entry["role"] == "assistant"]
        return {number for number, entry in enumerate(answers) if entry.get("stopped")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


MIN_STOP_CHARS = 6  # characters; "Q:" might be part of an answer
FinishReason = Literal["by itself", "stopped", "cut at its limit", "cut, the context is full"]


class ChatSession:
    def __init__(
        self,
        engine: Engine,
        template: ChatTemplate = ALPACA,
        settings: ChatSettings | None = None,
        system_prompt: str = "",
    ) -> None:
        self.engine, self.template = engine, template
        self.settings = settings or ChatSettings()
        self.answer_stats: list[AnswerStats] = []  # of all answers, also those that are forgotten
        self.resume(ConversationHistory(_clean(system_prompt)))

    def resume(self, history: ConversationHistory) -> None:
        """Continue this conversation."""
        self.history = history
        self.num_dropped = 0  # exchanges from the front that the model no longer sees
        # the last question, whether or not it was answered
        self.last_question = history.exchanges[-1].question if history.exchanges else ""
        self.num_before_question = max(len(history.exchanges) - 1, 0)  # exchanges before it
        self.num_retries = 0  # answers to it before the next one

    def reset(self) -> None:
        """Begin a new conversation; the system's text and the settings stay."""
        self.resume(ConversationHistory(self.history.system_prompt))

    def set_system_prompt(self, system_prompt: str) -> None:
        """Set what the model is told before the first question; "" for nothing."""
        self.history = replace(self.history, system_prompt=_clean(system_prompt))

    def ask(self, text: str) -> Generator[str]:
        """Return the answer, a piece for each token (perhaps an empty one).

        The exchange is in the history when the generator ends; closed before, it is there as
        stopped, with the answer so far. Raises ValueError, before the first piece, for a question
        that does not fit in the context; the session can go on.
        """
        question = _clean(text)
        if not question:
            raise ValueError("The question is empty; write something.")
        return self._start_answer(question, len(self.history.exchanges), 0)

    def regenerate(self) -> Generator[str]:
        """Return another answer to the last question, which replaces the one it had."""
        if not self.last_question:
            raise ValueError("There is no question to answer again; ask one first.")
        return self._start_answer(
            self.last_question, self.num_before_question, self.num_retries + 1
        )

    @property
    def context_length(self) -> int:
        return self.engine.model.config.block_size

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What opens a next question: a model that did not learn to end goes on with one."""
        before, _, _ = self.template.user.partition("{content}")
        opening = before.strip().partition("\n")[0].strip()
        return (opening,) if len(opening) >= MIN_STOP_CHARS else ()

    def _start_answer(self, question: str, num_before: int, num_retries: int) -> Generator[str]:
        fallen = self.num_dropped
        ids = self._fit_prompt(question, num_before)
        self.last_question, self.num_before_question, self.num_retries = (
            question,
            num_before,
            num_retries,
        )
        self.answer_stats.append(AnswerStats(len(ids), self.num_dropped - fallen))
        return self._generate(ids, self.answer_stats[-1])

    def _fit_prompt(self, question: str, num_before: int) -> list[int]:
        """Return the ids with the newest of so many exchanges that fit, and set `fallen`."""

        def encode(first: int) -> list[int]:
            history = replace(self.history, exchanges=self.history.exchanges[first:num_before])
            turns = (*history.to_turns(), Turn("user", question))
            return encode_prompt(turns, self.template, self.engine.tokenizer)

        shortest = len(encode(num_before))
        if shortest > self.context_length:
            system = " with the system's text" if self.history.system_prompt else ""
            raise ValueError(
                f"The question{system} has {shortest:,} tokens, and the model's context is "
                f"{self.context_length:,}; shorten it."
            )
        # an answer has half of the context at most, as when questions are asked in `evals/`
        room = max(self.context_length - self.settings.tokens, self.context_length // 2)
        # what fell out stays out: else the model would remember now this, now that
        self.num_dropped += bisect_left(
            range(self.num_dropped, num_before), True, key=lambda first: len(encode(first)) <= room
        )
        return encode(self.num_dropped)

    def _generate(self, ids: list[int], stats: "AnswerStats") -> Generator[str]:
        limit, sampling = self.settings.tokens, self.settings.sampling
        if sampling.seed is not None:
            # another answer is to be another one, and a seed still gives the same session
            sampling = replace(sampling, seed=(sampling.seed + self.num_retries) % 2**63)
        stream, trim, room = (
            IncrementalDetokenizer(self.stop_strings),
            StreamingStrip(),
            self.context_length - len(ids) + 1,
        )
        try:
            for token in self.engine.stream_token_ids(ids, limit, sampling, reuse_prefix=True):
                stats.count_token()
                yield trim.feed(stream.push(self.engine.tokenizer.decode_bytes([token])))
                if stream.stopped:
                    break
            if stream.stopped or stats.tokens < min(limit, room):
                stats.finish_reason = "by itself"
            else:
                stats.finish_reason = (
                    "cut, the context is full" if room < limit else "cut at its limit"
                )
            yield trim.feed(stream.push(b"", final=True))
        finally:
            stats.answer = trim.text
            self._add_to_history(stats)

    def _add_to_history(self, stats: "AnswerStats") -> None:
        if stats.answer:  # else there is nothing to remember, and an earlier answer stays
            exchange = Exchange(self.last_question, stats.answer, stats.finish_reason == "stopped")
            exchanges = (*self.history.exchanges[: self.num_before_question], exchange)
            self.history = replace(self.history, exchanges=exchanges)


class StreamingStrip:
    """Text without white space around it, in pieces: joined, they are its `strip()`."""

    def __init__(self) -> None:
        self.text = ""
        self.pending_whitespace = ""  # white space that is the text's, if anything follows

    def feed(self, text: str) -> str:
        self.pending_whitespace = self.pending_whitespace + text if self.text else text.lstrip()
        piece = self.pending_whitespace.rstrip()
        self.pending_whitespace = self.pending_whitespace[len(piece) :]
        self.text += piece
        return piece


@dataclass
class AnswerStats:
    """Figures of one answer: how long it was, how fast it came, and how it ended."""

    prompt_tokens: int  # tokens before the answer
    exchanges_dropped: int = 0  # exchanges that fell out of the context to make room for it
    answer: str = ""
    tokens: int = 0  # of the answer
    finish_reason: FinishReason = "stopped"  # until it ends otherwise
    start_time: float = field(default_factory=perf_counter)
    first_token_seconds: float = 0.0  # seconds until its first token
    decode_seconds: float = 0.0  # from there to its last

    def count_token(self) -> None:
        """Count one more token."""
        now = perf_counter() - self.start_time
        if self.tokens == 0:
            self.first_token_seconds = now
        self.tokens += 1
        self.decode_seconds = now - self.first_token_seconds

    def truncation_notice(self, context_length: int) -> str:
        """Return a notice of the exchanges that fell out of the context; "" where none did."""
        if not self.exchanges_dropped:
            return ""
        if self.exchanges_dropped == 1:
            what = "The oldest question falls, with its answer,"
        else:
            what = f"The {self.exchanges_dropped:,} oldest questions fall, with their answers,"
        return f"{what} out of the context of {context_length:,} tokens: the model forgets this."

    def __str__(self) -> str:
        parts = [f"{self.tokens:,} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens > 1 and self.decode_seconds:
            parts.append(f"{(self.tokens - 1) / self.decode_seconds:,.1f} tokens/s")
        if self.tokens:
            parts.append(f"first after {self.first_token_seconds:.2f} s")
        if self.finish_reason != "by itself":
            parts.append(self.finish_reason)
        return " · ".join(parts)


def _clean(text: str) -> str:
    """Return the text without white space around it, and without what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
