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

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.infer.compiled_decode import CompiledDecoder, DecodeRunner
from gnano.infer.cpu_layers import without_onednn_for_one_row
from gnano.infer.sampling import TokenLogprob, compute_logprob, sample_tokens, start_history
from gnano.model.kv_cache import KVCache
from gnano.model.transformer import GPT
from gnano.utils.validation import Range, check_field_ranges, check_number

MAX_PREFILL_TOKENS = 16_384  # positions, padding among them, that are computed in one pass at most

# end-of-text; as many tokens as were asked for; the context is full
FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True, kw_only=True)
class Request:
    prompt_ids: tuple[int, ...]  # of the prompt
    max_new_tokens: Annotated[int, Range(0, MAX_COUNT)] = 128  # to write at most
    sampling: SamplingParams = field(default_factory=SamplingParams)
    # alternatives told with each token's; None: none is told
    logprobs: Annotated[int | None, Range(0, MAX_COUNT)] = None
    context_shift: bool = False  # where the context is full, forget the older half of it and go on

    def __post_init__(self) -> None:
        check_field_ranges(self)


class SequenceState:
    """A request at work, and what was said."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.output_ids: list[int] = []  # without end-of-text
        self.logprobs: list[TokenLogprob] = []  # of the tokens said, if asked for
        self.finish_reason: FinishReason | None = None  # why it ended; None: it goes on
        self.context_shifted = False  # was something of it forgotten?
        self.generator = request.sampling.make_generator()
        self.history = start_history(request.prompt_ids, request.sampling)


class ContinuousBatch:
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
        eos_token_id: int,
        batch_size: int = 1,
        max_length: int | None = None,
        reuse_prefix: bool = False,
        compiled_decoder: CompiledDecoder | None = None,
        vocab_size: int | None = None,
    ) -> None:
        assert batch_size == 1 or not reuse_prefix, "which row's text is to be taken over?"
        self.model, self.eos_token_id, self.reuse_prefix = model, eos_token_id, reuse_prefix
        self.vocab_size = vocab_size or model.config.vocab_size
        self.cached_ids: tuple[
            int, ...
        ] = ()  # ids of the last text, as far as the cache still has it
        self.max_length = min(max_length or model.config.block_size, model.config.block_size)
        weight = model.model.embed_tokens.weight  # which no quantization changes
        self.device = weight.device
        dtype = model.compute_dtype or weight.dtype
        self.cache = KVCache(model.config, batch_size, self.max_length, dtype, self.device)
        # several rows take a CPU so long to multiply that what lies between is nothing
        gains = batch_size == 1 or self.device.type != "cpu"
        self.decode_runner = (
            DecodeRunner(compiled_decoder, self.cache) if compiled_decoder and gains else None
        )
        self.waiting: deque[SequenceState] = deque()
        self.active: list[SequenceState] = []  # row i of them is row i of the cache

    def __bool__(self) -> bool:
        """Is there anything left to do?"""
        return bool(self.active or self.waiting)

    def add(self, request: Request) -> SequenceState:
        """Raises ValueError for a prompt that leaves no room, and for ids that no token has."""
        if not request.prompt_ids:
            raise ValueError("The prompt has no token; begin it with end-of-text.")
        if len(request.prompt_ids) > self.max_length:
            raise ValueError(
                f"The prompt has {len(request.prompt_ids):,} tokens and leaves no room in the model's "
                f"context of {self.max_length:,}; shorten it."
            )
        allowed = Range(0, self.vocab_size - 1)
        for token in request.prompt_ids:
            if type(token) is not int or not 0 <= token < self.vocab_size:
                check_number("A token of the prompt", token, allowed)
        for token, _ in request.sampling.logit_bias:
            check_number("A token of logit_bias", token, allowed)
        row = SequenceState(request)
        if request.max_new_tokens > 0:
            self.waiting.append(row)
        else:
            row.finish_reason = "length"
        return row

    def cancel(self, row: SequenceState) -> None:
        """End it here; what it said stays."""
        if row in self.waiting:
            self.waiting.remove(row)
        elif row in self.active:
            place, last = self.active.index(row), self.active.pop()
            if self.reuse_prefix:
                text = (*row.request.prompt_ids, *row.output_ids)
                self.cached_ids = text[: self.cache.lengths[0]] if not row.context_shifted else ()
            if last is not row:
                self.cache.copy_row(len(self.active), target=place)
                self.active[place] = last
            self.cache.lengths[len(self.active)] = 0

    @torch.inference_mode()
    def step(self) -> list[SequenceState]:
        """One token more in each row, and the first in those that could join; returns them."""
        logits = [self._decode()] if self.active else []
        if new := self._admit():
            logits.append(self._prefill(new))
        if not logits:
            return []
        logits_BV = torch.cat(logits) if len(logits) > 1 else logits[0]
        logits_BV = logits_BV[
            :, : self.vocab_size
        ]  # the vocabulary may be padded beyond the tokens
        rows = list(self.active)
        tokens = sample_tokens(
            logits_BV,
            [row.request.sampling for row in rows],
            [row.generator for row in rows],
            [row.history for row in rows],
        )
        for number, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            self._append_token(row, token, logits_BV[number])
        return rows

    def _append_token(self, row: SequenceState, token: int, logits_V: Tensor) -> None:
        request, place = row.request, self.active.index(row)
        if token == self.eos_token_id:
            row.finish_reason = "stop"
        else:
            row.output_ids.append(token)
            if row.history:
                row.history.add(token)
            if request.logprobs is not None:
                row.logprobs.append(compute_logprob(logits_V, token, request.logprobs))
            if len(row.output_ids) == request.max_new_tokens:
                row.finish_reason = "length"
            elif self.cache.lengths[place] == self.max_length:
                if request.context_shift:
                    self._shift_context(row, place)
                else:
                    row.finish_reason = "context"
        if row.finish_reason:
            self.cancel(row)

    def _decode(self) -> Tensor:
        """Logits [B, V] after the last token of each row."""
        last = [row.output_ids[-1] for row in self.active]
        with without_onednn_for_one_row(self.model) if len(last) == 1 else nullcontext():
            if self.decode_runner:
                return self.decode_runner.step(last)
            ids_B1 = torch.tensor(last, device=self.device)[:, None]
            hidden_B1D = self.model.hidden_states(ids_B1, self.cache.slice_rows(0, len(last)))
            return self.model.logits(hidden_B1D[:, 0])

    def _admit(self) -> list[SequenceState]:
        """As many of those that wait as there is room for now."""
        new: list[SequenceState] = []
        longest = 0
        while self.waiting and len(self.active) + len(new) < len(self.cache.lengths):
            longest = max(longest, len(self.waiting[0].request.prompt_ids))
            if new and longest * (len(new) + 1) > MAX_PREFILL_TOKENS:
                break
            new.append(self.waiting.popleft())
        return new

    def _prefill(self, new: Sequence[SequenceState]) -> Tensor:
        """Logits [new, V] after their prompts; one that several have is computed once."""
        first = len(self.active)
        self.active += new
        distinct = list(dict.fromkeys(row.request.prompt_ids for row in new))
        lengths = [len(ids) for ids in distinct]
        padded = [[*ids, *[0] * (max(lengths) - len(ids))] for ids in distinct]
        part = self.cache.slice_rows(first, first + len(distinct))
        if self.reuse_prefix:
            # what it leaves to compute is a token at least: its logits are wanted
            known = min(_common_prefix_length(self.cached_ids, distinct[0]), lengths[0] - 1)
            part.lengths[:] = known
            padded = [padded[0][known:]]
        hidden_BTD = self.model.hidden_states(torch.tensor(padded, device=self.device), part)
        last = (
            torch.tensor(lengths, device=self.device) - 1 - (part.max_length - hidden_BTD.shape[1])
        )
        part.truncate(lengths)
        logits_BV = self.model.logits(hidden_BTD[torch.arange(len(distinct)), last])
        owners = [distinct.index(row.request.prompt_ids) for row in new]
        # from the last row on: no row is written over before it was read
        for number in reversed(range(len(new))):
            if owners[number] != number:
                self.cache.copy_row(first + owners[number], target=first + number)
        return logits_BV[owners]

    def _shift_context(self, row: SequenceState, place: int) -> None:
        """Begin again with the newer half of what it holds, all but the last token, which is next.

        Computed anew: a kept key would have seen what is forgotten.
        """
        text = [*row.request.prompt_ids, *row.output_ids][-(self.max_length // 2 + 1) : -1]
        row.context_shifted = True
        part = self.cache.slice_rows(place, place + 1)
        part.truncate([0])
        self.model.hidden_states(torch.tensor([text], device=self.device), part)


def _common_prefix_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(a, b, strict=False)
    return next((at for at, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
