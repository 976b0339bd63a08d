"""What was said, what comes next, and what does the model still see of it?

A session is a conversation without a terminal: it takes questions and gives answers in pieces.
Each prompt is built as in training, from the system's turn and the newest exchanges that leave
room for an answer:

    │ system │ exchange 1 │ exchange 2 │ … │ question │ answer …          │
             └── fall out ──┘                          └─ at most half ─┘
"""

from bisect import bisect_left
from collections.abc import Generator
from dataclasses import replace

from gnano.chat.history import Exchange, History
from gnano.chat.settings import Settings
from gnano.chat.speech import Speech, Trim
from gnano.data.instructions import ALPACA, Template, Turn, encode_prompt
from gnano.infer import Engine, Sampling, TextStream

SHORTEST_STOP = 6  # characters; "Q:" might be part of an answer


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
        self.history = History(_clean(system))
        self.fallen = 0  # exchanges from the front that the model no longer sees
        self.asked = ""  # the last question, whether or not it was answered
        self.kept = 0  # exchanges before it
        self.tries = 0  # answers to it before the next one
        self.speeches: list[Speech] = []  # of all answers, also those that are forgotten

    def ask(self, text: str) -> Generator[str]:
        """The answer, a piece for each token (perhaps an empty one).

        The exchange is in the history when the generator ends; closed before, it is there as
        stopped, with what was said so far. Raises ValueError, at once, for a question that
        does not fit in the context; the session can go on.
        """
        question = _clean(text)
        if not question:
            raise ValueError("The question is empty; write something.")
        return self._start(question, len(self.history.exchanges), 0)

    def again(self) -> Generator[str]:
        """Another answer to the last question, in the place of the one it had."""
        if not self.asked:
            raise ValueError("There is no question to answer again; ask one first.")
        return self._start(self.asked, self.kept, self.tries + 1)

    def reset(self) -> None:
        """Forget what was said; the system's text and the settings stay."""
        self._begin(History(self.history.system))

    def load(self, history: History) -> None:
        """Go on with this conversation."""
        self._begin(history)
        self.kept = max(len(history.exchanges) - 1, 0)
        self.asked = history.exchanges[-1].question if history.exchanges else ""

    def tell(self, system: str) -> None:
        """What the model is told before the first question; "" for nothing."""
        self.history = replace(self.history, system=_clean(system))

    @property
    def context(self) -> int:
        return self.engine.model.config.block_size

    @property
    def stop(self) -> tuple[str, ...]:
        """What opens a next question: a model that did not learn to end goes on with one."""
        before, _, _ = self.template.user.partition("{content}")
        opening = before.strip().partition("\n")[0].strip()
        return (opening,) if len(opening) >= SHORTEST_STOP else ()

    def _begin(self, history: History) -> None:
        self.history = history
        self.fallen = self.kept = self.tries = 0
        self.asked = ""

    def _start(self, question: str, kept: int, tries: int) -> Generator[str]:
        fallen = self.fallen
        ids = self._prompt(question, kept)
        self.asked, self.kept, self.tries = question, kept, tries
        self.speeches.append(Speech(len(ids), self.fallen - fallen))
        return self._answer(ids, self.speeches[-1])

    def _prompt(self, question: str, kept: int) -> list[int]:
        """The ids with the newest of so many exchanges that fit; `fallen` says which do not."""

        def ids(first: int) -> list[int]:
            said = replace(self.history, exchanges=self.history.exchanges[first:kept])
            turns = (*said.turns(), Turn("user", question))
            return encode_prompt(turns, self.template, self.engine.tokenizer)

        alone = len(ids(kept))
        if alone > self.context:
            system = " with the system's text" if self.history.system else ""
            raise ValueError(
                f"The question{system} has {alone:,} tokens, and the model's context is "
                f"{self.context:,}; shorten it."
            )
        # an answer has half of the context at most, as when questions are asked in `evals/`
        room = max(self.context - self.settings.tokens, self.context // 2)
        # what fell out stays out: else the model would remember now this, now that
        self.fallen += bisect_left(
            range(self.fallen, kept), True, key=lambda first: len(ids(first)) <= room
        )
        return ids(self.fallen)

    def _answer(self, ids: list[int], speech: Speech) -> Generator[str]:
        settings, stream, trim = self.settings, TextStream(self.stop), Trim()
        room = self.context - len(ids) + 1
        try:
            for token in self.engine.token_ids(ids, settings.tokens, self._sampling(), reuse=True):
                speech.count()
                yield trim.push(stream.push(self.engine.tokenizer.decode_bytes([token])))
                if stream.stopped:
                    speech.ending = "by itself"
                    return
            if speech.tokens < min(settings.tokens, room):
                speech.ending = "by itself"
            elif room < settings.tokens:
                speech.ending = "cut, the context is full"
            else:
                speech.ending = "cut at its limit"
            yield trim.push(stream.push(b"", final=True))
        finally:
            speech.answer = trim.said
            self._keep(trim.said, speech.ending == "stopped")

    def _keep(self, answer: str, stopped: bool) -> None:
        if not answer:  # nothing to remember; an answer that was there before stays
            return
        before = self.history.exchanges[: self.kept]
        exchange = Exchange(self.asked, answer, stopped)
        self.history = replace(self.history, exchanges=(*before, exchange))

    def _sampling(self) -> Sampling:
        sampling = self.settings.sampling
        if sampling.seed is None:
            return sampling
        # another answer is to be another one, and a seed still gives the same session
        return replace(sampling, seed=(sampling.seed + self.tries) % 2**63)


def _clean(text: str) -> str:
    """Without white space around it, and without what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
