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

import torch
from torch import Tensor

from gnano.infer.compiled_decode import CompiledDecoder, DecodeRunner
from gnano.infer.graph_decode import STEPS_AHEAD, GraphDecoder, GraphRunner
from gnano.infer.prefix_cache import PREFILL_BLOCK, PrefixCache
from gnano.infer.request import Request, SequenceState
from gnano.infer.sampling import TokenHistory, compute_logprobs, sample_tokens
from gnano.infer.weight_formats import QuantizedLinear, without_onednn_for_one_row
from gnano.model.attention import KVCache
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import IncrementalDetokenizer, Tokenizer
from gnano.utils.validation import Range, check_number

# tokens of prompts computed between two decoding steps
CPU_PREFILL_TOKENS, GPU_PREFILL_TOKENS = 128, 2_048
NOT_FINITE = (
    "No token can be drawn, because the model's logits are not finite numbers: its weights have "
    "overflowed or are damaged; use an earlier checkpoint."
)


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
        compiled_decoder: CompiledDecoder | GraphDecoder | None = None,
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
        self.decode_runner: DecodeRunner | None = None
        self.graph_runner: GraphRunner | None = None
        if isinstance(compiled_decoder, GraphDecoder):
            vocab_size = tokenizer.vocab_size
            self.graph_runner = compiled_decoder.reserve_runner(
                self, batch_size, self.max_length, vocab_size
            )
            self.cache = self.graph_runner.cache.slice_rows(0, batch_size)
        else:
            dtype, in_tiles = model.compute_dtype or weight.dtype, batch_size > 1
            self.cache = KVCache(
                model.config, batch_size, self.max_length, dtype, self.device, in_tiles
            )
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
            if self.graph_runner and not self.active:
                self.graph_runner.pending.clear()

    @torch.inference_mode()
    def step(
        self, on_decoded: Callable[[list[SequenceState]], None] = lambda _: None
    ) -> list[SequenceState]:
        """Add one token to each active sequence, then compute prompts; return what changed.

        On a GPU the token may be that of a step launched earlier, which a new sequence has no part
        in. At most `prefill_tokens` of prompts are computed, first come first served. Before that,
        `on_decoded` receives the sequences with a new token.
        """
        changed = list(self.active)
        if changed:
            runner = self.graph_runner
            while runner and len(runner.pending) <= STEPS_AHEAD and self._can_step_ahead():
                runner.launch(self.active)
            if runner and runner.pending:
                step = runner.pending.popleft()
                self._accept(step.rows, step.read())
                changed = [s for s in changed if s in step.rows]
            else:
                self._sample(changed, self._decode())
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

    def _can_step_ahead(self) -> bool:
        """Whether a step needs no decision of the host, and some sequence needs its token."""
        lengths = self.cache.lengths[: len(self.active)].tolist()
        return (
            max(lengths) < self.max_length
            and not any(s.history or s.request.needs_host for s in self.active)
            and any(
                length - len(s.request.prompt_ids) + 1 < s.request.max_new_tokens
                for length, s in zip(lengths, self.active, strict=True)
            )
        )

    def _decode(self) -> Tensor:
        """Return logits [B, V] after the last token of each active sequence."""
        last = [sequence.output_ids[-1] for sequence in self.active]
        if self.graph_runner:
            return self.graph_runner.step(last)
        rows = len(last)
        is_free_to_round = self.batch_size == 1 or not self.active[0].request.is_repeatable
        # with several rows on a CPU the products take so long that compilation gains nothing
        if self.decode_runner and rows == 1 and is_free_to_round:
            with without_onednn_for_one_row(self.model):
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
            self._sample(new, logits_V.expand(len(new), -1))
        if sequence not in new:
            sequence.finish_reason = "length"
            new.append(sequence)
        return new

    def _sample(self, sequences: Sequence[SequenceState], logits_BV: Tensor) -> None:
        """Sample a token of each of these active sequences."""
        logits_BV = logits_BV[:, : self.tokenizer.vocab_size]
        tokens = sample_tokens(
            logits_BV,
            [sequence.request.sampling for sequence in sequences],
            [sequence.generator for sequence in sequences],
            [sequence.history for sequence in sequences],
        )
        self._accept(sequences, tokens, logits_BV)

    def _accept(
        self,
        sequences: Sequence[SequenceState],
        tokens: Sequence[int | None],
        logits_BV: Sequence[Tensor] | Tensor | None = None,
    ) -> None:
        """Add a token to each of these sequences that is still active; end those that finish."""
        for number, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
            if sequence not in self.active:
                continue
            row = self.active.index(sequence)
            if token is None:
                self._fail(sequence, row)
            elif token in self.eos_ids:
                sequence.finish_reason = "stop"
                sequence.add_text(b"")
            else:
                self._add_token(
                    sequence, row, token, None if logits_BV is None else logits_BV[number]
                )
            if sequence.finish_reason:
                self.cancel(sequence)

    def _add_token(
        self, sequence: SequenceState, row: int, token: int, logits_V: Tensor | None
    ) -> None:
        request = sequence.request
        length = int(self.cache.lengths[row])
        if not request.context_shift:  # steps that were launched ahead have extended the row
            length = len(request.prompt_ids) + len(sequence.output_ids)
        is_full = length == self.max_length
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
        if request.logprobs is not None and logits_V is not None:
            [logprob] = compute_logprobs(logits_V[None], [token], request.logprobs)
        sequence.add_text(self.tokenizer.id_bytes[token], logprob)

    def _fail(self, sequence: SequenceState, row: int) -> None:
        """End a sequence whose logits are not finite; its row is zeroed, as its keys may be so."""
        sequence.finish_reason, sequence.error = "error", NOT_FINITE
        sequence.add_text(b"")
        self.cache.clear_row(row)
