"""A conversation without a terminal: it takes questions and gives answers in pieces.

Each prompt is built as in training, from the system's turn and the newest exchanges that leave
room for an answer:

    │ system │ exchange 1 │ exchange 2 │ … │ question │ answer …          │
             └── fall out ──┘                          └─ at most half ─┘
"""

from bisect import bisect_left
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

from gnano.chat.history import Exchange, History
from gnano.chat.settings import Settings
from gnano.data.instructions.conversations import Turn
from gnano.data.instructions.encoding import encode_prompt
from gnano.data.instructions.templates import ALPACA, Template
from gnano.infer.engine import Engine
from gnano.infer.text_stream import TextStream

SHORTEST_STOP = 6  # characters; "Q:" might be part of an answer
Ending = Literal["by itself", "stopped", "cut at its limit", "cut, the context is full"]


class Session:
    def __init__(
        self,
        engine: Engine,
        template: Template = ALPACA,
        settings: Settings | None = None,
        system: str = "",
    ) -> None:
        self.engine, self.template = engine, template
        self.settings = settings or Settings()
        self.speeches: list[Speech] = []  # of all answers, also those that are forgotten
        self.load(History(_clean(system)))

    def load(self, history: History) -> None:
        """Continue this conversation."""
        self.history = history
        self.fallen = 0  # exchanges from the front that the model no longer sees
        # the last question, whether or not it was answered
        self.asked = history.exchanges[-1].question if history.exchanges else ""
        self.kept = max(len(history.exchanges) - 1, 0)  # exchanges before it
        self.tries = 0  # answers to it before the next one

    def reset(self) -> None:
        """Begin a new conversation; the system's text and the settings stay."""
        self.load(History(self.history.system))

    def tell(self, system: str) -> None:
        """Set what the model is told before the first question; "" for nothing."""
        self.history = replace(self.history, system=_clean(system))

    def ask(self, text: str) -> Generator[str]:
        """Return the answer, a piece for each token (perhaps an empty one).

        The exchange is in the history when the generator ends; closed before, it is there as
        stopped, with the answer so far. Raises ValueError, before the first piece, for a question
        that does not fit in the context; the session can go on.
        """
        question = _clean(text)
        if not question:
            raise ValueError("The question is empty; write something.")
        return self._start(question, len(self.history.exchanges), 0)

    def again(self) -> Generator[str]:
        """Return another answer to the last question, which replaces the one it had."""
        if not self.asked:
            raise ValueError("There is no question to answer again; ask one first.")
        return self._start(self.asked, self.kept, self.tries + 1)

    @property
    def context(self) -> int:
        return self.engine.model.config.block_size

    @property
    def stop(self) -> tuple[str, ...]:
        """What opens a next question: a model that did not learn to end goes on with one."""
        before, _, _ = self.template.user.partition("{content}")
        opening = before.strip().partition("\n")[0].strip()
        return (opening,) if len(opening) >= SHORTEST_STOP else ()

    def _start(self, question: str, kept: int, tries: int) -> Generator[str]:
        fallen = self.fallen
        ids = self._fit_prompt(question, kept)
        self.asked, self.kept, self.tries = question, kept, tries
        self.speeches.append(Speech(len(ids), self.fallen - fallen))
        return self._generate(ids, self.speeches[-1])

    def _fit_prompt(self, question: str, kept: int) -> list[int]:
        """Return the ids with the newest of so many exchanges that fit, and set `fallen`."""

        def encode(first: int) -> list[int]:
            history = replace(self.history, exchanges=self.history.exchanges[first:kept])
            turns = (*history.turns(), Turn("user", question))
            return encode_prompt(turns, self.template, self.engine.tokenizer)

        shortest = len(encode(kept))
        if shortest > self.context:
            system = " with the system's text" if self.history.system else ""
            raise ValueError(
                f"The question{system} has {shortest:,} tokens, and the model's context is "
                f"{self.context:,}; shorten it."
            )
        # an answer has half of the context at most, as when questions are asked in `evals/`
        room = max(self.context - self.settings.tokens, self.context // 2)
        # what fell out stays out: else the model would remember now this, now that
        self.fallen += bisect_left(
            range(self.fallen, kept), True, key=lambda first: len(encode(first)) <= room
        )
        return encode(self.fallen)

    def _generate(self, ids: list[int], speech: "Speech") -> Generator[str]:
        limit, sampling = self.settings.tokens, self.settings.sampling
        if sampling.seed is not None:
            # another answer is to be another one, and a seed still gives the same session
            sampling = replace(sampling, seed=(sampling.seed + self.tries) % 2**63)
        stream, trim, room = TextStream(self.stop), Trim(), self.context - len(ids) + 1
        try:
            for token in self.engine.token_ids(ids, limit, sampling, reuse=True):
                speech.count()
                yield trim.push(stream.push(self.engine.tokenizer.decode_bytes([token])))
                if stream.stopped:
                    break
            if stream.stopped or speech.tokens < min(limit, room):
                speech.ending = "by itself"
            else:
                speech.ending = "cut, the context is full" if room < limit else "cut at its limit"
            yield trim.push(stream.push(b"", final=True))
        finally:
            speech.answer = trim.said
            self._remember(speech)

    def _remember(self, speech: "Speech") -> None:
        if speech.answer:  # else there is nothing to remember, and an earlier answer stays
            exchange = Exchange(self.asked, speech.answer, speech.ending == "stopped")
            exchanges = (*self.history.exchanges[: self.kept], exchange)
            self.history = replace(self.history, exchanges=exchanges)


class Trim:
    """Text without white space around it, in pieces: joined, they are its `strip()`."""

    def __init__(self) -> None:
        self.said = ""
        self.held = ""  # white space that is the text's, if anything follows

    def push(self, text: str) -> str:
        self.held = self.held + text if self.said else text.lstrip()
        piece = self.held.rstrip()
        self.held = self.held[len(piece) :]
        self.said += piece
        return piece


@dataclass
class Speech:
    """Figures of one answer: how long it was, how fast it came, and how it ended."""

    prompt: int  # tokens before the answer
    fell: int = 0  # exchanges that fell out of the context to make room for it
    answer: str = ""
    tokens: int = 0  # of the answer
    ending: Ending = "stopped"  # until it ends otherwise
    began: float = field(default_factory=perf_counter)
    first: float = 0.0  # seconds until its first token
    seconds: float = 0.0  # from there to its last

    def count(self) -> None:
        """Count one more token."""
        now = perf_counter() - self.began
        if self.tokens == 0:
            self.first = now
        self.tokens += 1
        self.seconds = now - self.first

    def forgotten(self, context: int) -> str:
        """Return a notice of the exchanges that fell out of the context; "" where none did."""
        if not self.fell:
            return ""
        if self.fell == 1:
            what = "The oldest question falls, with its answer,"
        else:
            what = f"The {self.fell:,} oldest questions fall, with their answers,"
        return f"{what} out of the context of {context:,} tokens: the model forgets this."

    def __str__(self) -> str:
        parts = [f"{self.tokens:,} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens > 1 and self.seconds:
            parts.append(f"{(self.tokens - 1) / self.seconds:,.1f} tokens/s")
        if self.tokens:
            parts.append(f"first after {self.first:.2f} s")
        if self.ending != "by itself":
            parts.append(self.ending)
        return " · ".join(parts)


def _clean(text: str) -> str:
    """Return the text without white space around it, and without what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
