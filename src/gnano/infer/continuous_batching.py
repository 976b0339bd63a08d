"""Continuous batching: several sequences are generated together and join or leave between steps.

    add ─▶ waiting ─▶ prefill of all new sequences, in one pass ─┐
                      decode: one more token of each active one ─┴▶ logits ─▶ sample ─▶ text
    a sequence ends or is canceled ─▶ the last row of the cache moves to its place

Each sequence has its own settings, history and random generator, so the others in the batch change
its tokens only through the rounding of matrix products with another number of rows.
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
from gnano.infer.sampling import (
    TokenHistory,
    TokenLogprob,
    compute_logprob,
    sample_tokens,
)
from gnano.infer.weight_formats import without_onednn_for_one_row
from gnano.model.attention import KVCache
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import IncrementalDetokenizer, Tokenizer
from gnano.utils.validation import Range, check_field_ranges, check_number

MAX_PREFILL_TOKENS = 16_384  # of one pass, padding included

# end-of-text or a stop string; max_new_tokens reached; context full
FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to continue it."""

    prompt_ids: tuple[int, ...]
    max_new_tokens: Annotated[int, Range(0, MAX_COUNT)] = 128
    sampling: SamplingParams = field(default_factory=SamplingParams)
    # alternatives returned with each token's log-probability; None: no log-probabilities
    logprobs: Annotated[int | None, Range(0, MAX_COUNT)] = None
    stop: Sequence[str] = ()  # strings that end the text and are not part of it
    context_shift: bool = False  # drop the older half of a full context and continue

    def __post_init__(self) -> None:
        check_field_ranges(self)


@dataclass(eq=False)
class SequenceState:
    """A request in progress and its output so far."""

    request: Request
    generator: torch.Generator
    history: TokenHistory | None  # for penalties
    detokenizer: IncrementalDetokenizer
    text: str = ""  # what no later token can change
    # without end-of-text, but including those of a stop string
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the output, if requested
    finish_reason: FinishReason | None = None  # None while in progress
    context_shifted: bool = False


class ContinuousBatch:
    """Up to `batch_size` sequences in progress; further requests wait.

    `max_length` limits prompt and output together (default: the model's context). With
    `reuse_prefix`, a batch of one row keeps its cache and computes only the part of the next
    prompt that differs from the last sequence. `compiled_decoder` is used on a CPU only for one
    row. `eos_token_id` ends a text (default: end-of-text). Ids that the tokenizer does not have are
    padding: they are refused in prompts and never sampled or reported.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        batch_size: int = 1,
        max_length: int | None = None,
        reuse_prefix: bool = False,
        compiled_decoder: CompiledDecoder | None = None,
        eos_token_id: int | None = None,
    ) -> None:
        assert batch_size == 1 or not reuse_prefix, "only one row can reuse its prefix"
        self.model, self.tokenizer, self.reuse_prefix = model.eval(), tokenizer, reuse_prefix
        self.eos_token_id = tokenizer.end_of_text_id if eos_token_id is None else eos_token_id
        self.cached_ids: tuple[int, ...] = ()  # of the last sequence, as far as they are cached
        self.max_length = min(max_length or model.config.block_size, model.config.block_size)
        weight = model.model.embed_tokens.weight  # never quantized
        self.device = weight.device
        dtype = model.compute_dtype or weight.dtype
        self.cache = KVCache(model.config, batch_size, self.max_length, dtype, self.device)
        # with several rows on a CPU the products take so long that compilation gains nothing
        self.decode_runner: DecodeRunner | None = None
        if compiled_decoder and (batch_size == 1 or self.device.type != "cpu"):
            self.decode_runner = DecodeRunner(compiled_decoder, self.cache)
        self.waiting: deque[SequenceState] = deque()
        self.active: list[SequenceState] = []  # the i-th is row i of the cache

    def add(self, request: Request) -> SequenceState:
        """Queue a request; raises ValueError for a prompt that is too long or has unknown ids."""
        if not request.prompt_ids:
            raise ValueError("The prompt has no token; start it with end-of-text.")
        if len(request.prompt_ids) > self.max_length:
            raise ValueError(
                f"The prompt has {len(request.prompt_ids):,} tokens and does not fit in the "
                f"model's context of {self.max_length:,}; shorten it."
            )
        allowed = Range(0, self.tokenizer.vocab_size - 1)
        for token in request.prompt_ids:
            if type(token) is not int or not 0 <= token < self.tokenizer.vocab_size:
                check_number("A token of the prompt", token, allowed)
        sampling = request.sampling
        for token, _ in sampling.logit_bias:
            check_number("A token of logit_bias", token, allowed)
        generator = torch.Generator()
        if sampling.seed is None:
            generator.seed()  # from the operating system
        else:
            generator.manual_seed(sampling.seed)
        has_penalties = (
            sampling.repetition_penalty != 1
            or sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.no_repeat_ngram_size
        )
        history = TokenHistory(request.prompt_ids, sampling) if has_penalties else None
        detokenizer = IncrementalDetokenizer(request.stop)
        sequence = SequenceState(request, generator, history, detokenizer)
        if request.max_new_tokens > 0:
            self.waiting.append(sequence)
        else:
            sequence.finish_reason = "length"
        return sequence

    def cancel(self, sequence: SequenceState) -> None:
        """End a sequence before its time; its output stays."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.active:
            row, last = self.active.index(sequence), self.active.pop()
            if self.reuse_prefix:
                ids = (*sequence.request.prompt_ids, *sequence.output_ids)
                size = 0 if sequence.context_shifted else self.cache.lengths[0]
                self.cached_ids = ids[:size]
            if last is not sequence:
                self.cache.copy_row(len(self.active), target=row)
                self.active[row] = last
            self.cache.lengths[len(self.active)] = 0

    @torch.inference_mode()
    def step(self) -> list[SequenceState]:
        """Add one token to each active sequence, admit waiting ones, and return all of these."""
        logits = []
        if self.active:
            last = [sequence.output_ids[-1] for sequence in self.active]
            with without_onednn_for_one_row(self.model) if len(last) == 1 else nullcontext():
                if self.decode_runner:
                    logits.append(self.decode_runner.step(last))
                else:
                    ids_B1 = torch.tensor(last, device=self.device)[:, None]
                    part = self.cache.slice_rows(0, len(last))
                    hidden_B1D = self.model.hidden_states(ids_B1, part)
                    logits.append(self.model.logits(hidden_B1D[:, 0]))
        new: list[SequenceState] = []
        longest = 0
        while self.waiting and len(self.active) + len(new) < len(self.cache.lengths):
            longest = max(longest, len(self.waiting[0].request.prompt_ids))
            if new and longest * (len(new) + 1) > MAX_PREFILL_TOKENS:
                break
            new.append(self.waiting.popleft())
        if new:
            logits.append(self._prefill(new))
        if not logits:
            return []
        logits_BV = torch.cat(logits) if len(logits) > 1 else logits[0]
        logits_BV = logits_BV[:, : self.tokenizer.vocab_size]
        sequences = list(self.active)
        tokens = sample_tokens(
            logits_BV,
            [sequence.request.sampling for sequence in sequences],
            [sequence.generator for sequence in sequences],
            [sequence.history for sequence in sequences],
        )
        for sequence, token, logits_V in zip(sequences, tokens, logits_BV, strict=True):
            if token == self.eos_token_id:
                sequence.finish_reason = "stop"
                sequence.text += sequence.detokenizer.push(b"", final=True)
                self.cancel(sequence)
                continue
            request, row = sequence.request, self.active.index(sequence)
            is_full = self.cache.lengths[row] == self.max_length
            sequence.output_ids.append(token)
            if sequence.history:
                sequence.history.add(token)
            if request.logprobs is not None:
                sequence.logprobs.append(compute_logprob(logits_V, token, request.logprobs))
            if len(sequence.output_ids) == request.max_new_tokens:
                sequence.finish_reason = "length"
            elif is_full and not request.context_shift:
                sequence.finish_reason = "context"
            elif is_full:
                # the cache is recomputed from the newer half of the sequence, without its last
                # token: cached keys depend on the tokens that are dropped
                ids = [*request.prompt_ids, *sequence.output_ids]
                newer = ids[-(self.max_length // 2 + 1) : -1]
                sequence.context_shifted = True
                part = self.cache.slice_rows(row, row + 1)
                part.lengths[:] = 0
                self.model.hidden_states(torch.tensor([newer], device=self.device), part)
            data, is_end = self.tokenizer.id_bytes[token], sequence.finish_reason is not None
            sequence.text += sequence.detokenizer.push(data, is_end)
            if sequence.detokenizer.stopped:
                sequence.finish_reason = "stop"
            if sequence.finish_reason:
                self.cancel(sequence)
        return sequences

    def _prefill(self, new: Sequence[SequenceState]) -> Tensor:
        """Return logits [new, V] after the prompts, each distinct prompt computed once."""
        first = len(self.active)
        self.active += new
        distinct = list(dict.fromkeys(sequence.request.prompt_ids for sequence in new))
        lengths = [len(ids) for ids in distinct]
        padded = [[*ids, *[0] * (max(lengths) - len(ids))] for ids in distinct]
        part = self.cache.slice_rows(first, first + len(distinct))
        known = 0  # tokens at the start whose keys and values are cached
        if self.reuse_prefix:
            # at least one token is computed, for its logits
            limit = min(len(self.cached_ids), lengths[0] - 1)
            while known < limit and self.cached_ids[known] == distinct[0][known]:
                known += 1
            part.lengths[:] = known
            padded = [padded[0][known:]]
        hidden_BTD = self.model.hidden_states(torch.tensor(padded, device=self.device), part)
        last = torch.tensor(lengths, device=self.device) - 1 - known
        part.lengths[:] = lengths
        logits_BV = self.model.logits(hidden_BTD[torch.arange(len(distinct)), last])
        owners = [distinct.index(sequence.request.prompt_ids) for sequence in new]
        # backwards, so that no row is overwritten before it is copied
        for number in reversed(range(len(new))):
            if owners[number] != number:
                self.cache.copy_row(first + owners[number], target=first + number)
        return logits_BV[owners]
