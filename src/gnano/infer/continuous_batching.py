"""Continuous batching: several sequences are generated together and join or leave between steps.

    add ─▶ waiting ─▶ prefill: blocks of a prompt, a limited number per step ─┐
                      decode: one more token of each active sequence ─────────┴▶ logits ─▶ sample
    a sequence ends or is canceled ─▶ the last row of the cache moves to its place

    slots of the cache   │ active │ active │ active │ free … │ the prompt in prefill │

Each sequence has its own settings, history and random generator. In a batch of several slots its
text does not depend on the other sequences, bit for bit, on a CPU and for a model from
`Engine.load`: a prompt is computed alone, in blocks that begin at fixed positions; a decoding step
reads whole tiles of the cache (`gnano.model.attention`); and PyTorch's products have at least two
rows, since they round differently for one. Only a sequence that nobody can ask for again, because
it is sampled without a seed, may use faster ways for a row that is alone.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.infer.compiled_decode import CompiledDecoder, DecodeRunner
from gnano.infer.prefix_cache import PREFILL_BLOCK, PrefixCache
from gnano.infer.sampling import TokenHistory, TokenLogprob, compute_logprobs, sample_tokens
from gnano.infer.weight_formats import QuantizedLinear, without_onednn_for_one_row
from gnano.model.attention import KVCache
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import IncrementalDetokenizer, Tokenizer
from gnano.utils.validation import Range, check_field_ranges, check_number

# tokens of prompts computed between two decoding steps
CPU_PREFILL_TOKENS, GPU_PREFILL_TOKENS = 128, 2_048
NOT_FINITE = (
    "No token can be drawn, because the model's logits are not finite numbers: its weights have "
    "overflowed or are damaged; use an earlier checkpoint."
)

# end-of-text or a stop string; max_new_tokens reached; context full; logits that are not finite
FinishReason = Literal["stop", "length", "context", "error"]


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
    prompt_logprobs: bool = False  # of the prompt's tokens too, with as many alternatives

    def __post_init__(self) -> None:
        check_field_ranges(self)
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))  # a list is accepted too

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request must give the same text again."""
        return self.sampling.seed is not None or self.sampling.temperature == 0


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
    # if requested: of the tokens whose text is complete in `text`
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)  # None for the first
    cached_tokens: int = 0  # of the prompt, from the prefix cache
    finish_reason: FinishReason | None = None  # None while in progress
    error: str = ""  # one sentence, if the finish reason is "error"
    # of tokens whose text is not final yet, with the length of the text that includes it
    held_logprobs: deque[tuple[int, TokenLogprob]] = field(default_factory=deque)

    def add_text(self, data: bytes, logprob: TokenLogprob | None = None) -> None:
        """Add the bytes of a token; all text is final once there is a finish reason."""
        is_end = self.finish_reason is not None
        self.text += self.detokenizer.push(data, is_end)
        if self.detokenizer.stopped:
            self.finish_reason = "stop"
        elif logprob:
            self.held_logprobs.append((self.detokenizer.text_length, logprob))
        while self.held_logprobs and self.held_logprobs[0][0] <= len(self.text):
            self.logprobs.append(self.held_logprobs.popleft()[1])


class ContinuousBatch:
    """Up to `batch_size` sequences in progress; further requests wait.

    `max_length` limits prompt and output together (default: the model's context). Beginnings of
    prompts are taken from the `prefix_cache` and stored in it. `compiled_decoder` is used on a CPU
    only for one row. `eos_ids` end a text (default: the tokenizer's). Ids that the tokenizer does
    not have are padding: they are refused in prompts and never sampled or reported.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        batch_size: int = 1,
        max_length: int | None = None,
        prefix_cache: PrefixCache | None = None,
        compiled_decoder: CompiledDecoder | None = None,
        eos_ids: Sequence[int] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prefix_cache = model.eval(), tokenizer, prefix_cache
        self.eos_ids = tokenizer.eos_ids if eos_ids is None else eos_ids
        self.batch_size = batch_size
        self.max_length = min(max_length or model.config.block_size, model.config.block_size)
        weight = model.model.embed_tokens.weight  # never quantized
        self.device = weight.device
        is_cpu = self.device.type == "cpu"
        # of one step, so that the others, and whoever wants to cancel, wait no longer
        self.prefill_tokens = CPU_PREFILL_TOKENS if is_cpu else GPU_PREFILL_TOKENS
        self.cache = KVCache(
            model.config,
            batch_size,
            self.max_length,
            model.compute_dtype or weight.dtype,
            self.device,
            in_tiles=batch_size > 1,
        )
        self.decode_runner: DecodeRunner | None = None
        if compiled_decoder:
            self.decode_runner = DecodeRunner(compiled_decoder, self.cache)
        self.waiting: deque[SequenceState] = deque()  # only the first one's prefill may have begun
        self.active: list[SequenceState] = []  # the i-th is row i of the cache

    def add(self, request: Request) -> SequenceState:
        """Queue a request; raises ValueError for one that is invalid for this model."""
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
        if request.max_new_tokens > 0 or request.prompt_logprobs:
            self.waiting.append(sequence)
        else:
            sequence.finish_reason = "length"
        return sequence

    def cancel(self, sequence: SequenceState) -> None:
        """End a sequence before its time; its output stays."""
        if sequence in self.waiting:
            if sequence is self.waiting[0] and len(self.active) < self.batch_size:
                self.cache.clear_row(-1)  # its prefill may have begun, with values not finite
            self.waiting.remove(sequence)
        elif sequence in self.active:
            row, last = self.active.index(sequence), self.active.pop()
            if last is not sequence:
                self.cache.copy_row(len(self.active), target=row)
                self.active[row] = last
            self.cache.lengths[len(self.active)] = 0

    @torch.inference_mode()
    def step(
        self, on_decoded: Callable[[list[SequenceState]], None] = lambda _: None
    ) -> list[SequenceState]:
        """Add one token to each active sequence, then compute prompts; return what changed.

        At most `prefill_tokens` of prompts are computed, first come first served. Before that,
        `on_decoded` receives the sequences with a new token.
        """
        changed = list(self.active)
        if changed:
            self._accept(changed, self._decode())
            on_decoded(changed)
        num_computed = 0
        while self.waiting and len(self.active) < self.batch_size:
            sequence = self.waiting[0]
            rest = len(sequence.request.prompt_ids) - int(self.cache.lengths[-1])
            num_next = min(rest, PREFILL_BLOCK)
            if num_computed and num_computed + num_next > self.prefill_tokens:
                break
            tokens, logits_V = self._prefill_block(sequence)
            num_computed += tokens
            if logits_V is not None:
                changed += self._join(sequence, logits_V)
        return changed

    def _decode(self) -> Tensor:
        """Return logits [B, V] after the last token of each active sequence."""
        last = [sequence.output_ids[-1] for sequence in self.active]
        rows = len(last)
        is_free_to_round = self.batch_size == 1 or not self.active[0].request.is_repeatable
        # with several rows on a CPU the products take so long that compilation gains nothing
        if self.decode_runner and (self.device.type != "cpu" or (rows == 1 and is_free_to_round)):
            with without_onednn_for_one_row(self.model) if rows == 1 else nullcontext():
                return self.decode_runner.step(last)
        is_alone = rows == 1 and not is_free_to_round and self.device.type == "cpu"
        if is_alone and not isinstance(self.model.lm_head, QuantizedLinear):
            # the second slot is free or in prefill: what is written there is overwritten
            last.append(0)
        ids_B1 = torch.tensor(last, device=self.device)[:, None]
        part = self.cache.slice_rows(0, len(last))
        with without_onednn_for_one_row(self.model) if len(last) == 1 else nullcontext():
            logits_BV = self.model.logits(self.model.hidden_states(ids_B1, part)[:, 0])
        self.cache.lengths[rows : len(last)] -= 1
        return logits_BV[:rows]

    def _prefill_block(self, sequence: SequenceState) -> tuple[int, Tensor | None]:
        """Compute a block of the prompt in the last slot; return its tokens, and logits at its end.

        The logits are None before the end of the prompt.
        """
        request, ids = sequence.request, sequence.request.prompt_ids
        part = self.cache.slice_rows(self.batch_size - 1, self.batch_size)
        if self.prefix_cache and not part.lengths[0] and not request.prompt_logprobs:
            sequence.cached_tokens = self.prefix_cache.restore(ids, part)
        start = int(part.lengths[0])
        block = ids[start : start + PREFILL_BLOCK]
        hidden_TD = self.model.hidden_states(torch.tensor([block], device=self.device), part)[0]
        end = start + len(block)
        if request.prompt_logprobs:
            logits_TV = self.model.logits(hidden_TD)[:, : self.tokenizer.vocab_size]
            following = ids[start + 1 : end + 1]
            sequence.prompt_logprobs += [
                *([None] if start == 0 else []),
                *compute_logprobs(logits_TV[: len(following)], following, request.logprobs or 0),
            ]
        if end < len(ids):
            return len(block), None
        return len(block), self.model.logits(hidden_TD[-1:])[0]

    def _join(self, sequence: SequenceState, logits_V: Tensor) -> list[SequenceState]:
        """Sample after a computed prompt, for all that wait next with the same prompt."""
        ids, slot = sequence.request.prompt_ids, self.batch_size - 1
        self.waiting.popleft()
        if not bool(logits_V.isfinite().all()):
            self._fail(sequence, slot)
            return [sequence]
        if self.prefix_cache:
            self.prefix_cache.store(ids, self.cache.slice_rows(slot, slot + 1))
        new = [sequence] if sequence.request.max_new_tokens else []
        while self.waiting and len(self.active) + len(new) < self.batch_size:
            request = self.waiting[0].request
            if request.prompt_ids != ids or request.prompt_logprobs:
                break
            new.append(self.waiting.popleft())
            new[-1].cached_tokens = sequence.cached_tokens
        for other in new:
            self.cache.copy_row(slot, target=len(self.active))
            self.active.append(other)
        if len(self.active) < self.batch_size:
            self.cache.lengths[slot] = 0
        if new:
            self._accept(new, logits_V.expand(len(new), -1))
        if sequence not in new:
            sequence.finish_reason = "length"
            new.append(sequence)
        return new

    def _accept(self, sequences: Sequence[SequenceState], logits_BV: Tensor) -> None:
        """Sample a token of each of these active sequences, and end those that are finished."""
        logits_BV = logits_BV[:, : self.tokenizer.vocab_size]
        tokens = sample_tokens(
            logits_BV,
            [sequence.request.sampling for sequence in sequences],
            [sequence.generator for sequence in sequences],
            [sequence.history for sequence in sequences],
        )
        for sequence, token, logits_V in zip(sequences, tokens, logits_BV, strict=True):
            row = self.active.index(sequence)
            if token is None:
                self._fail(sequence, row)
            elif token in self.eos_ids:
                sequence.finish_reason = "stop"
                sequence.add_text(b"")
            else:
                self._add_token(sequence, row, token, logits_V)
            if sequence.finish_reason:
                self.cancel(sequence)

    def _add_token(self, sequence: SequenceState, row: int, token: int, logits_V: Tensor) -> None:
        request = sequence.request
        is_full = self.cache.lengths[row] == self.max_length
        sequence.output_ids.append(token)
        if sequence.history:
            sequence.history.add(token)
        if len(sequence.output_ids) == request.max_new_tokens:
            sequence.finish_reason = "length"
        elif is_full and not request.context_shift:
            sequence.finish_reason = "context"
        elif is_full:
            # the cache is recomputed from the newer half of the sequence, without its last
            # token: cached keys depend on the tokens that are dropped
            ids = [*request.prompt_ids, *sequence.output_ids]
            newer = torch.tensor([ids[-(self.max_length // 2 + 1) : -1]], device=self.device)
            part = self.cache.slice_rows(row, row + 1)
            part.lengths[:] = 0
            for block in torch.split(newer, PREFILL_BLOCK, dim=1):
                self.model.hidden_states(block, part)
        logprob = None
        if request.logprobs is not None:
            [logprob] = compute_logprobs(logits_V[None], [token], request.logprobs)
        sequence.add_text(self.tokenizer.id_bytes[token], logprob)

    def _fail(self, sequence: SequenceState, row: int) -> None:
        """End a sequence whose logits are not finite; its row is zeroed, as its keys may be so."""
        sequence.finish_reason, sequence.error = "error", NOT_FINITE
        sequence.add_text(b"")
        self.cache.clear_row(row)
