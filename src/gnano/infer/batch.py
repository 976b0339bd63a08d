"""Several texts at once, each by itself: rows join and leave between two steps.

    add ─▶ waiting ─▶ prefill: all that are new, in one pass ─┐
                      step: one more token of the others ─────┴▶ logits ─▶ choose ─▶ rows
    the text ends, or `drop` ─▶ the last row takes its place

A row's settings, history and random numbers are its own, so what it says depends on the others only
by rounding, which is that of products of so many rows.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from gnano.infer.choosing import choose_each
from gnano.infer.logprobs import LogProb, log_probabilities
from gnano.infer.packed import one_row
from gnano.infer.penalties import start_history
from gnano.infer.sampling import MOST, Sampling
from gnano.infer.step import CompiledStep, Stepper
from gnano.model.cache import KVCache
from gnano.model.gpt import GPT
from gnano.utils.ranges import Range, check_number, check_ranges

PREFILL = 16_384  # positions, padding among them, that are computed in one pass at most

# end-of-text; as many tokens as were asked for; the context is full
Reason = Literal["stop", "length", "context"]


@dataclass(frozen=True, kw_only=True)
class Request:
    ids: tuple[int, ...]  # of the prompt
    tokens: Annotated[int, Range(0, MOST)] = 128  # to write at most
    sampling: Sampling = field(default_factory=Sampling)
    # alternatives told with each token's; None: none is told
    log_probs: Annotated[int | None, Range(0, MOST)] = None
    slide: bool = False  # where the context is full, forget the older half of it and go on

    def __post_init__(self) -> None:
        check_ranges(self)


class Row:
    """A request at work, and what was said."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.said: list[int] = []  # without end-of-text
        self.log_probs: list[LogProb] = []  # of the tokens said, if asked for
        self.reason: Reason | None = None  # why it ended; None: it goes on
        self.slid = False  # was something of it forgotten?
        self.generator = request.sampling.generator()
        self.history = start_history(request.ids, request.sampling)


class Batch:
    """At most `rows` texts at once; the others wait.

    `end` is the id of end-of-text; `length` the tokens that a row may come to, prompt and
    answer together: by default the model's context. A batch of one row that is to `reuse` what
    it computed takes over as much of the last text as the next prompt begins with. A `compiled`
    step is the model's; on a CPU it is of use for a row alone. Of the model's ids the first `vocab`
    are tokens, by default all: no other is taken in a prompt, drawn or told.
    """

    def __init__(
        self,
        model: GPT,
        end: int,
        rows: int = 1,
        length: int | None = None,
        reuse: bool = False,
        compiled: CompiledStep | None = None,
        vocab: int | None = None,
    ) -> None:
        assert rows == 1 or not reuse, "which row's text is to be taken over?"
        self.model, self.end, self.reuse = model, end, reuse
        self.vocab = vocab or model.config.vocab_size
        self.left: tuple[int, ...] = ()  # ids of the last text, as far as the cache still has it
        self.length = min(length or model.config.block_size, model.config.block_size)
        weight = model.model.embed_tokens.weight  # which no quantization changes
        self.device = weight.device
        dtype = model.compute_dtype or weight.dtype
        self.cache = KVCache(model.config, rows, self.length, dtype, self.device)
        # several rows take a CPU so long to multiply that what lies between is nothing
        gains = rows == 1 or self.device.type != "cpu"
        self.stepper = Stepper(compiled, self.cache) if compiled and gains else None
        self.waiting: deque[Row] = deque()
        self.rows: list[Row] = []  # row i of them is row i of the cache

    def __bool__(self) -> bool:
        """Is there anything left to do?"""
        return bool(self.rows or self.waiting)

    def add(self, request: Request) -> Row:
        """Raises ValueError for a prompt that leaves no room, and for ids that no token has."""
        if not request.ids:
            raise ValueError("The prompt has no token; begin it with end-of-text.")
        if len(request.ids) > self.length:
            raise ValueError(
                f"The prompt has {len(request.ids):,} tokens and leaves no room in the model's "
                f"context of {self.length:,}; shorten it."
            )
        allowed = Range(0, self.vocab - 1)
        for token in request.ids:
            if type(token) is not int or not 0 <= token < self.vocab:
                check_number("A token of the prompt", token, allowed)
        for token, _ in request.sampling.logit_bias:
            check_number("A token of logit_bias", token, allowed)
        row = Row(request)
        if request.tokens > 0:
            self.waiting.append(row)
        else:
            row.reason = "length"
        return row

    def drop(self, row: Row) -> None:
        """End it here; what it said stays."""
        if row in self.waiting:
            self.waiting.remove(row)
        elif row in self.rows:
            place, last = self.rows.index(row), self.rows.pop()
            if self.reuse:
                text = (*row.request.ids, *row.said)
                self.left = text[: self.cache.lengths[0]] if not row.slid else ()
            if last is not row:
                self.cache.move(len(self.rows), to=place)
                self.rows[place] = last
            self.cache.lengths[len(self.rows)] = 0

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One token more in each row, and the first in those that could join; returns them."""
        logits = [self._decode()] if self.rows else []
        if new := self._joining():
            logits.append(self._prefill(new))
        if not logits:
            return []
        logits_BV = torch.cat(logits) if len(logits) > 1 else logits[0]
        logits_BV = logits_BV[:, : self.vocab]  # the vocabulary may be padded beyond the tokens
        rows = list(self.rows)
        tokens = choose_each(
            logits_BV,
            [row.request.sampling for row in rows],
            [row.generator for row in rows],
            [row.history for row in rows],
        )
        for number, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            self._say(row, token, logits_BV[number])
        return rows

    def _say(self, row: Row, token: int, logits_V: Tensor) -> None:
        request, place = row.request, self.rows.index(row)
        if token == self.end:
            row.reason = "stop"
        else:
            row.said.append(token)
            if row.history:
                row.history.add(token)
            if request.log_probs is not None:
                row.log_probs.append(log_probabilities(logits_V, token, request.log_probs))
            if len(row.said) == request.tokens:
                row.reason = "length"
            elif self.cache.lengths[place] == self.length:
                if request.slide:
                    self._slide(row, place)
                else:
                    row.reason = "context"
        if row.reason:
            self.drop(row)

    def _decode(self) -> Tensor:
        """Logits [B, V] after the last token of each row."""
        last = [row.said[-1] for row in self.rows]
        with one_row(self.model) if len(last) == 1 else nullcontext():
            if self.stepper:
                return self.stepper.step(last)
            ids_B1 = torch.tensor(last, device=self.device)[:, None]
            hidden_B1D = self.model.hidden(ids_B1, self.cache.part(0, len(last)))
            return self.model.logits(hidden_B1D[:, 0])

    def _joining(self) -> list[Row]:
        """As many of those that wait as there is room for now."""
        new: list[Row] = []
        longest = 0
        while self.waiting and len(self.rows) + len(new) < len(self.cache.lengths):
            longest = max(longest, len(self.waiting[0].request.ids))
            if new and longest * (len(new) + 1) > PREFILL:
                break
            new.append(self.waiting.popleft())
        return new

    def _prefill(self, new: Sequence[Row]) -> Tensor:
        """Logits [new, V] after their prompts; one that several have is computed once."""
        first = len(self.rows)
        self.rows += new
        distinct = list(dict.fromkeys(row.request.ids for row in new))
        lengths = [len(ids) for ids in distinct]
        padded = [[*ids, *[0] * (max(lengths) - len(ids))] for ids in distinct]
        part = self.cache.part(first, first + len(distinct))
        if self.reuse:
            # what it leaves to compute is a token at least: its logits are wanted
            known = min(_common(self.left, distinct[0]), lengths[0] - 1)
            part.lengths[:] = known
            padded = [padded[0][known:]]
        hidden_BTD = self.model.hidden(torch.tensor(padded, device=self.device), part)
        last = torch.tensor(lengths, device=self.device) - 1 - (part.length - hidden_BTD.shape[1])
        part.keep(lengths)
        logits_BV = self.model.logits(hidden_BTD[torch.arange(len(distinct)), last])
        owners = [distinct.index(row.request.ids) for row in new]
        # from the last row on: no row is written over before it was read
        for number in reversed(range(len(new))):
            if owners[number] != number:
                self.cache.move(first + owners[number], to=first + number)
        return logits_BV[owners]

    def _slide(self, row: Row, place: int) -> None:
        """Begin again with the newer half of what it holds, all but the last token, which is next.

        Computed anew: a kept key would have seen what is forgotten.
        """
        text = [*row.request.ids, *row.said][-(self.length // 2 + 1) : -1]
        row.slid = True
        part = self.cache.part(place, place + 1)
        part.keep([0])
        self.model.hidden(torch.tensor([text], device=self.device), part)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(a, b, strict=False)
    return next((at for at, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
