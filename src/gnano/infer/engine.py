"""The inference engine: generates text, streaming one sequence or batching several.

prompts ─▶ ids ─▶ `ContinuousBatch` ─▶ one token per step ─▶ bytes ─▶ text that is final
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import cast

import torch

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import InferenceDtype, Quantization, SamplingParams
from gnano.infer.compiled_decode import CompiledDecoder
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.graph_decode import GraphDecoder, new_decoder
from gnano.infer.prefix_cache import PrefixCache
from gnano.infer.request import FinishReason, Request, SequenceState
from gnano.infer.sampling import TokenLogprob
from gnano.infer.weight_formats import FusedLinear, fuse_projections, prepack_onednn, quantize_model
from gnano.model.hf_io import load_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.utils.platform_support import compile_unsupported_reason, resolve_device
from gnano.utils.validation import Range, check_number

INFERENCE_DTYPES: dict[InferenceDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# larger models exceed a CPU's cache, so that halving their bytes saves time
BF16_MIN_PARAMETERS = 50_000_000
MAX_SAMPLES = 100_000
MAX_BATCH_SIZE = 16  # sequences that `generate_batch` decodes together


@dataclass(frozen=True)
class Completion:
    """A finished continuation of a prompt."""

    text: str
    token_ids: tuple[int, ...]  # without end-of-text, but including those of a stop string
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()  # of the ids whose text is complete, if requested
    prompt_tokens: int = 0


@dataclass(eq=False)
class Engine:
    """A model and its tokenizer, for generating text."""

    model: GPT
    tokenizer: Tokenizer
    compiled_decoder: CompiledDecoder | GraphDecoder | None = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
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
        """Load a run (its newest checkpoint), a checkpoint, or a Hugging Face Llama folder.

        `device` auto is a CUDA GPU if there is one. `dtype` auto is bf16 on a GPU, and on a CPU
        with bf16 instructions for a large model; otherwise the stored dtype. `quant` keeps the
        matrices in 8 or 4 bits. `compile` takes some seconds and makes each token faster.
        `threads` sets the CPU threads of this process; 0 is one per core.
        """
        if threads:  # 0 keeps PyTorch's default, one per core
            torch.set_num_threads(threads)
        folder = find_checkpoint(Path(path))
        device = resolve_device(device)
        if compile and (reason := compile_unsupported_reason(torch.device(device))):
            raise ValueError(f"{reason} Or load the model without compile.")
        model = load_model(folder, device)
        if dtype != "auto":
            torch_dtype = INFERENCE_DTYPES[dtype]
        elif device.startswith("cuda") or (
            device.startswith("cpu")
            and torch.cpu._is_avx512_bf16_supported()
            and model.num_parameters() >= BF16_MIN_PARAMETERS
        ):
            torch_dtype = torch.bfloat16
        else:
            torch_dtype = model.lm_head.weight.dtype
        fuse_projections(model.to(torch_dtype))
        if quant:
            quantize_model(model, quant)
        if torch_dtype != torch.bfloat16:  # unpacked bf16 is faster for one row
            prepack_onednn(model)
        engine = cls(model, load_tokenizer(folder))
        if compile:
            engine.compiled_decoder = new_decoder(model)
            engine.compiled_decoder.warm_up()
        return engine

    def new_batch(
        self,
        batch_size: int = 1,
        max_length: int | None = None,
        prefix_cache: PrefixCache | None = None,
        eos_ids: Sequence[int] | None = None,
    ) -> ContinuousBatch:
        """Return an empty batch; `eos_ids` default to the tokenizer's.

        For several sequences the matrices are repacked first.
        """
        if batch_size > 1:
            self.prepare_for_batching()
        return ContinuousBatch(
            self.model,
            self.tokenizer,
            batch_size,
            max_length,
            prefix_cache,
            self.compiled_decoder,
            eos_ids,
        )

    def prepare_for_batching(self) -> None:
        """Repack the matrices for several rows, if not yet done; a training model stays as is."""
        if isinstance(self.model.lm_head, FusedLinear):
            prepack_onednn(self.model)
            if not isinstance(self.model.lm_head, FusedLinear):
                self.compiled_decoder = None  # was compiled for the other matrices

    def stream(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
        context_shift: bool = False,
        batch: ContinuousBatch | None = None,
    ) -> Generator[tuple[str, SequenceState]]:
        """Generate one sequence; after each step yield the text that became final and the sequence.

        The text may be empty. The sequence carries the ids so far and, at the end, the finish
        reason: `max_new_tokens` reached, end-of-text, a stop string (which is not returned), or a
        full context. With `context_shift` the older half of a full context is dropped instead. A
        conversation passes a `batch` with a prefix cache, so that the beginning which successive
        prompts share is computed once. Raises ValueError for a prompt that does not fit, and for
        logits that are not finite.
        """
        ids = self.encode_prompt(prompt)
        request = Request(
            prompt_ids=ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling or SamplingParams(),
            stop=stop,
            context_shift=context_shift,
        )
        if batch is None or batch.active or batch.waiting:  # or it is busy with other sequences
            batch = self.new_batch(1, len(ids) + max_new_tokens)
        sequence = batch.add(request)
        try:
            while sequence.finish_reason is None:
                known = len(sequence.text)
                batch.step()
                _check_error(sequence)
                yield sequence.text[known:], sequence
        finally:
            batch.cancel(sequence)

    def stream_text(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
        context_shift: bool = False,
    ) -> Generator[str]:
        """Return the pieces of text of `stream`, without empty ones."""
        stream = self.stream(prompt, max_new_tokens, sampling, stop, context_shift)
        return (text for text, _ in stream if text)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
        context_shift: bool = False,
    ) -> str:
        """Return the complete text of `stream`."""
        return "".join(self.stream_text(prompt, max_new_tokens, sampling, stop, context_shift))

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int = 128,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
        num_samples: int = 1,
        logprobs: int | None = None,
        context_shift: bool = False,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> list[list[Completion]]:
        """Return `num_samples` completions of each prompt, generated several at a time.

        With a seed none depends on the others (see `continuous_batching`); a single one is computed
        by faster products, which round differently. With `logprobs` each token has its
        log-probability and this many alternatives. `on_progress` receives the number of finished
        completions. Raises ValueError as `stream` does.
        """
        check_number("samples", num_samples, Range(1, MAX_SAMPLES))
        sampling = sampling or SamplingParams()
        requests = [
            Request(
                prompt_ids=ids,
                max_new_tokens=max_new_tokens,
                sampling=sample_params,
                logprobs=logprobs,
                stop=stop,
                context_shift=context_shift,
            )
            for ids in map(self.encode_prompt, prompts)
            for sample_params in map(sampling.for_sample, range(num_samples))
        ]
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        batch_size = max(1, min(MAX_BATCH_SIZE, len(requests)))
        batch = self.new_batch(batch_size, longest + max_new_tokens)
        sequences = [batch.add(request) for request in requests]
        on_progress(done := 0)
        while batch.active or batch.waiting:
            for sequence in batch.step():
                _check_error(sequence)
                if sequence.finish_reason:
                    on_progress(done := done + 1)
        completions = [
            Completion(
                sequence.text,
                tuple(sequence.output_ids),
                cast(FinishReason, sequence.finish_reason),
                tuple(sequence.logprobs),
                len(sequence.request.prompt_ids),
            )
            for sequence in sequences
        ]
        starts = range(0, len(completions), num_samples)
        return [completions[start : start + num_samples] for start in starts]

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Return the ids of a prompt; text starts a document, ids are returned unchanged.

        A text starts as in training: with end-of-text, or what the tokenizer of another family
        puts there.
        """
        if not isinstance(prompt, str):
            return tuple(prompt)
        ids = (*self.tokenizer.bos_ids, *self.tokenizer.encode(prompt))
        return ids or (self.tokenizer.end_of_text_id,)


def _check_error(sequence: SequenceState) -> None:
    if sequence.error:
        raise ValueError(sequence.error)
