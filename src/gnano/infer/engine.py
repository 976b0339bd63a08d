"""Bytes of tokens in, text out, as early as it is certain.

A token can end in the middle of a character and a stop string can span tokens, so text is
held back until no continuation can change it: never a broken character, never the first
half of a stop string.

A model that continues text: prefill the prompts once, then one token at a time.

prompts ─▶ ids ─▶ `Batch` ─▶ token by token ─▶ bytes ─▶ text that is certain
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from gnano.checkpoint.format import find_checkpoint
from gnano.config.inference_config import InferenceDtype, Quantization, SamplingParams
from gnano.infer.compiled_decode import CompiledDecoder
from gnano.infer.continuous_batching import ContinuousBatch, FinishReason, Request, SequenceState
from gnano.infer.cpu_layers import fuse_projections, prepack_onednn
from gnano.infer.quantize import quantize_model
from gnano.infer.sampling import TokenLogprob
from gnano.model.devices import compile_unsupported_reason, resolve_device
from gnano.model.hf_io import load_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.platform_support import set_num_threads
from gnano.utils.validation import Range, check_number


class IncrementalDetokenizer:
    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self.stop_strings = (
            (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        )
        if any(not isinstance(text, str) or not text for text in self.stop_strings):
            raise ValueError("A stop string is empty, or no text; give at least one character.")
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending_text = ""
        self.stopped = False  # a stop string was met; nothing follows

    def push(self, data: bytes, final: bool = False) -> str:
        """Take a token's bytes; return the text that is now certain."""
        if self.stopped:
            return ""
        self.pending_text += self.decoder.decode(data, final)
        # of stop strings inside one another, the one complete first, however the text is cut
        met = [
            (at + len(s), at) for s in self.stop_strings if (at := self.pending_text.find(s)) >= 0
        ]
        if met:
            self.stopped = True
            certain, self.pending_text = self.pending_text[: min(met)[1]], ""
            return certain
        keep = 0 if final else self._partial_stop_length()
        certain = self.pending_text[: len(self.pending_text) - keep]
        self.pending_text = self.pending_text[len(self.pending_text) - keep :]
        return certain

    def _partial_stop_length(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self.stop_strings), default=0) - 1
        for length in range(min(longest, len(self.pending_text)), 0, -1):
            if any(text.startswith(self.pending_text[-length:]) for text in self.stop_strings):
                return length
        return 0


INFERENCE_DTYPES: dict[InferenceDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# parameters that do not stay in a CPU's cache, so that half the bytes count
BF16_MIN_PARAMETERS = 50_000_000
DEFAULT_SAMPLING = SamplingParams()
MAX_SAMPLES = 100_000
MAX_BATCH_SIZE = 16  # texts that `complete` writes side by side


@dataclass(frozen=True)
class Completion:
    text: str
    token_ids: tuple[int, ...]  # without end-of-text; more than the text where a stop string cut it
    finish_reason: FinishReason  # stop: end-of-text or a stop string; length; context
    logprobs: tuple[TokenLogprob, ...] = ()  # of the ids, if asked for
    prompt_tokens: int = 0


class Engine:
    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.conversation_batch: ContinuousBatch | None = None  # of the conversation
        self.may_repack = False  # may the model be changed for speed? Not if it goes on learning
        self.compiled_decoder: CompiledDecoder | None = None

    @property
    def device(self) -> torch.device:
        return self.model.model.embed_tokens.weight.device

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        device: str = "auto",
        dtype: InferenceDtype = "auto",
        quant: Quantization = "",
        compile: bool = False,
        threads: int = 0,
    ) -> "Engine":
        """From a run (its newest checkpoint), a checkpoint, or any Llama folder like it.

        `device` auto is a GPU with CUDA if there is one; `dtype` auto is bf16 there, and on a CPU
        that multiplies bf16 if the model is large, else as it is stored. `quant` keeps the
        matrices in 8 or 4 bits. `compile` takes some seconds here and saves some of each token.
        `threads` is how many of a CPU's this process computes with from now on, 0 being one per
        core.
        """
        set_num_threads(threads)
        folder = find_checkpoint(Path(path))
        device = resolve_device(device)
        if compile and (lacking := compile_unsupported_reason(torch.device(device))):
            raise ValueError(f"{lacking} Or load the model without compile.")
        model = load_model(folder, device)
        if dtype == "auto":
            dtype = _default_dtype(model)
        fuse_projections(model.to(INFERENCE_DTYPES[dtype]))
        if quant:
            quantize_model(model, quant)
        engine = cls(model, Tokenizer.load(folder))
        engine.may_repack = True
        if INFERENCE_DTYPES[dtype] != torch.bfloat16:  # which one row reads fastest as it lies
            engine.prepare_for_batching()
        if compile:
            engine.compiled_decoder = CompiledDecoder(model)
            engine.compiled_decoder.warm_up()
        return engine

    def new_batch(
        self,
        batch_size: int = 1,
        max_length: int | None = None,
        reuse_prefix: bool = False,
        eos_token_id: int | None = None,
    ) -> ContinuousBatch:
        """Of the engine's model, ended by the tokenizer's end-of-text if by nothing else."""
        eos_token_id = self.tokenizer.end_of_text_id if eos_token_id is None else eos_token_id
        vocab = self.tokenizer.vocab_size
        return ContinuousBatch(
            self.model,
            eos_token_id,
            batch_size,
            max_length,
            reuse_prefix,
            self.compiled_decoder,
            vocab,
        )

    def prepare_for_batching(self) -> None:
        """Lay the matrices out for texts side by side, if that was not yet done."""
        if self.may_repack:
            prepack_onednn(self.model)

    def stream_text(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: SamplingParams = DEFAULT_SAMPLING,
        stop: Sequence[str] = (),
        context_shift: bool = False,
    ) -> Iterator[str]:
        """Pieces of the continuation as they become certain; joined, they are its text.

        Ends after so many tokens, at end-of-text, before a stop string, or where the
        context is full; with `slide` the older half of the text is forgotten there. Raises
        ValueError for a prompt that leaves no room.
        """
        text = IncrementalDetokenizer(stop)
        for token in self.stream_token_ids(prompt, max_new_tokens, sampling, context_shift):
            if piece := text.push(self.tokenizer.decode_bytes([token])):
                yield piece
            if text.stopped:
                return
        if piece := text.push(b"", final=True):
            yield piece

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: SamplingParams = DEFAULT_SAMPLING,
        stop: Sequence[str] = (),
        context_shift: bool = False,
    ) -> str:
        """The whole continuation; the same text that `stream` gives in pieces."""
        return "".join(self.stream_text(prompt, max_new_tokens, sampling, stop, context_shift))

    def stream_token_ids(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int,
        sampling: SamplingParams,
        context_shift: bool = False,
        reuse_prefix: bool = False,
    ) -> Iterator[int]:
        """The continuation's ids, up to and without end-of-text.

        In a conversation each prompt begins with the one before: with `reuse` what was computed
        of that is taken over. The result is then the same but for rounding.
        """
        ids = self.encode_prompt(prompt)
        request = Request(
            prompt_ids=ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            context_shift=context_shift,
        )
        if not reuse_prefix or self.conversation_batch:  # it is at work on another text
            batch = self.new_batch(1, len(ids) + max_new_tokens)
        elif self.conversation_batch is None:
            batch = self.conversation_batch = self.new_batch(reuse_prefix=True)
        else:
            batch = self.conversation_batch
        row = batch.add(request)
        try:
            while row.finish_reason is None:
                said = len(row.output_ids)
                batch.step()
                yield from row.output_ids[said:]
        finally:
            batch.cancel(row)  # if its reader has heard enough

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int = 128,
        sampling: SamplingParams = DEFAULT_SAMPLING,
        stop: Sequence[str] = (),
        num_samples: int = 1,
        logprobs: int | None = None,
        context_shift: bool = False,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> list[list[Completion]]:
        """So many completions of each prompt, many side by side; each as alone, but for rounding.

        With `log_probs` each token comes with its log-probability and so many alternatives.
        `show` is told how many completions are done.
        """
        check_number("samples", num_samples, Range(1, MAX_SAMPLES))
        requests = [
            Request(
                prompt_ids=ids,
                max_new_tokens=max_new_tokens,
                sampling=own,
                logprobs=logprobs,
                context_shift=context_shift,
            )
            for ids in map(self.encode_prompt, prompts)
            for own in map(sampling.for_sample, range(num_samples))
        ]
        if len(requests) > 1:
            self.prepare_for_batching()
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        rows = max(1, min(MAX_BATCH_SIZE, len(requests)))
        batch = self.new_batch(rows, longest + max_new_tokens)
        streams = {batch.add(request): IncrementalDetokenizer(stop) for request in requests}
        pieces: dict[SequenceState, list[str]] = {row: [] for row in streams}
        done = 0
        while batch:
            for row in batch.step():
                new = (
                    row.output_ids[-1:] if row.finish_reason != "stop" else []
                )  # the token of this step
                data = self.tokenizer.decode_bytes(new)
                pieces[row].append(streams[row].push(data, final=row.finish_reason is not None))
                if streams[row].stopped:
                    batch.cancel(row)
                    row.finish_reason = "stop"
                done += row.finish_reason is not None
            on_progress(done)
        found = []
        for row, texts in pieces.items():
            assert row.finish_reason is not None, "the batch is empty"
            said = "".join(texts), tuple(row.output_ids), row.finish_reason, tuple(row.logprobs)
            found.append(Completion(*said, prompt_tokens=len(row.request.prompt_ids)))
        return [found[start : start + num_samples] for start in range(0, len(found), num_samples)]

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """A prompt of ids is taken as it is; one of text begins a document.

        A document starts with end-of-text, so the model has only seen texts begin there.
        """
        if isinstance(prompt, str):
            return self.tokenizer.end_of_text_id, *self.tokenizer.encode(prompt)
        return tuple(prompt)


def _default_dtype(model: GPT) -> InferenceDtype:
    """The dtype to compute in where none was asked for."""
    weight = model.model.embed_tokens.weight
    if weight.device.type == "cuda":
        return "bf16"
    if (
        weight.device.type == "cpu"
        and torch.cpu._is_avx512_bf16_supported()
        and model.num_parameters() >= BF16_MIN_PARAMETERS
    ):
        return "bf16"
    return next(name for name, dtype in INFERENCE_DTYPES.items() if dtype == weight.dtype)
