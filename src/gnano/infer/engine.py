"""A model that continues text: prefill the prompts once, then one token at a time.

prompts ─▶ ids ─▶ `Batch` ─▶ token by token ─▶ bytes ─▶ text that is certain
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from gnano.infer.batch import Batch, Reason, Request, Row
from gnano.infer.lean import make_lean
from gnano.infer.loading import Dtype, Quant
from gnano.infer.logprobs import LogProb
from gnano.infer.packed import pack
from gnano.infer.quantized import quantize
from gnano.infer.sampling import Sampling
from gnano.infer.step import CompiledStep
from gnano.infer.text_stream import TextStream
from gnano.model.compiling import compile_lacking
from gnano.model.devices import device_called
from gnano.model.folder import load_model
from gnano.model.gpt import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.openmp import use_threads
from gnano.utils.ranges import Range, check_number

DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
LARGE = 50_000_000  # parameters that do not stay in a CPU's cache, so that half the bytes count
DEFAULT = Sampling()
MOST_SAMPLES = 100_000
AT_ONCE = 16  # texts that `complete` writes side by side


@dataclass(frozen=True)
class Completion:
    text: str
    ids: tuple[int, ...]  # without end-of-text; more than the text where a stop string cut it
    reason: Reason  # stop: end-of-text or a stop string; length; context
    log_probs: tuple[LogProb, ...] = ()  # of the ids, if asked for
    prompt_tokens: int = 0


class Engine:
    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.last: Batch | None = None  # of the conversation
        self.own = False  # may the model be changed for speed? Not if it goes on learning
        self.compiled: CompiledStep | None = None

    @property
    def device(self) -> torch.device:
        return self.model.model.embed_tokens.weight.device

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        device: str = "auto",
        dtype: Dtype = "auto",
        quant: Quant = "",
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
        use_threads(threads)
        folder = find_checkpoint(Path(path))
        device = device_called(device)
        if compile and (lacking := compile_lacking(torch.device(device))):
            raise ValueError(f"{lacking} Or load the model without compile.")
        model = load_model(folder, device)
        if dtype == "auto":
            dtype = _usual(model)
        make_lean(model.to(DTYPES[dtype]))
        if quant:
            quantize(model, quant)
        engine = cls(model, Tokenizer.load(folder))
        engine.own = True
        if DTYPES[dtype] != torch.bfloat16:  # which one row reads fastest as it lies
            engine.expect_several()
        if compile:
            engine.compiled = CompiledStep(model)
            engine.compiled.warm_up()
        return engine

    def batch(
        self, rows: int = 1, length: int | None = None, reuse: bool = False, end: int | None = None
    ) -> Batch:
        """Of the engine's model, ended by the tokenizer's end-of-text if by nothing else."""
        end = self.tokenizer.end_of_text if end is None else end
        vocab = self.tokenizer.vocab_size
        return Batch(self.model, end, rows, length, reuse, self.compiled, vocab)

    def expect_several(self) -> None:
        """Lay the matrices out for texts side by side, if that was not yet done."""
        if self.own:
            pack(self.model)

    def stream(
        self,
        prompt: str | Sequence[int],
        tokens: int = 128,
        sampling: Sampling = DEFAULT,
        stop: Sequence[str] = (),
        slide: bool = False,
    ) -> Iterator[str]:
        """Pieces of the continuation as they become certain; joined, they are its text.

        Ends after so many tokens, at end-of-text, before a stop string, or where the
        context is full; with `slide` the older half of the text is forgotten there. Raises
        ValueError for a prompt that leaves no room.
        """
        text = TextStream(stop)
        for token in self.token_ids(prompt, tokens, sampling, slide):
            if piece := text.push(self.tokenizer.decode_bytes([token])):
                yield piece
            if text.stopped:
                return
        if piece := text.push(b"", final=True):
            yield piece

    def generate(
        self,
        prompt: str | Sequence[int],
        tokens: int = 128,
        sampling: Sampling = DEFAULT,
        stop: Sequence[str] = (),
        slide: bool = False,
    ) -> str:
        """The whole continuation; the same text that `stream` gives in pieces."""
        return "".join(self.stream(prompt, tokens, sampling, stop, slide))

    def token_ids(
        self,
        prompt: str | Sequence[int],
        tokens: int,
        sampling: Sampling,
        slide: bool = False,
        reuse: bool = False,
    ) -> Iterator[int]:
        """The continuation's ids, up to and without end-of-text.

        In a conversation each prompt begins with the one before: with `reuse` what was computed
        of that is taken over. The result is then the same but for rounding.
        """
        ids = self.prompt_ids(prompt)
        request = Request(ids=ids, tokens=tokens, sampling=sampling, slide=slide)
        if not reuse or self.last:  # it is at work on another text
            batch = self.batch(1, len(ids) + tokens)
        elif self.last is None:
            batch = self.last = self.batch(reuse=True)
        else:
            batch = self.last
        row = batch.add(request)
        try:
            while row.reason is None:
                said = len(row.said)
                batch.step()
                yield from row.said[said:]
        finally:
            batch.drop(row)  # if its reader has heard enough

    def complete(
        self,
        prompts: Sequence[str | Sequence[int]],
        tokens: int = 128,
        sampling: Sampling = DEFAULT,
        stop: Sequence[str] = (),
        samples: int = 1,
        log_probs: int | None = None,
        slide: bool = False,
        show: Callable[[int], None] = lambda _: None,
    ) -> list[list[Completion]]:
        """So many completions of each prompt, many side by side; each as alone, but for rounding.

        With `log_probs` each token comes with its log-probability and so many alternatives.
        `show` is told how many completions are done.
        """
        check_number("samples", samples, Range(1, MOST_SAMPLES))
        requests = [
            Request(ids=ids, tokens=tokens, sampling=own, log_probs=log_probs, slide=slide)
            for ids in map(self.prompt_ids, prompts)
            for own in map(sampling.sample, range(samples))
        ]
        if len(requests) > 1:
            self.expect_several()
        longest = max((len(request.ids) for request in requests), default=0)
        rows = max(1, min(AT_ONCE, len(requests)))
        batch = self.batch(rows, longest + tokens)
        streams = {batch.add(request): TextStream(stop) for request in requests}
        pieces: dict[Row, list[str]] = {row: [] for row in streams}
        done = 0
        while batch:
            for row in batch.step():
                new = row.said[-1:] if row.reason != "stop" else []  # the token of this step
                data = self.tokenizer.decode_bytes(new)
                pieces[row].append(streams[row].push(data, final=row.reason is not None))
                if streams[row].stopped:
                    batch.drop(row)
                    row.reason = "stop"
                done += row.reason is not None
            show(done)
        found = []
        for row, texts in pieces.items():
            assert row.reason is not None, "the batch is empty"
            said = "".join(texts), tuple(row.said), row.reason, tuple(row.log_probs)
            found.append(Completion(*said, prompt_tokens=len(row.request.ids)))
        return [found[start : start + samples] for start in range(0, len(found), samples)]

    def prompt_ids(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """A prompt of ids is taken as it is; one of text begins a document.

        A document starts with end-of-text, so the model has only seen texts begin there.
        """
        if isinstance(prompt, str):
            return self.tokenizer.end_of_text, *self.tokenizer.encode(prompt)
        return tuple(prompt)


def _usual(model: GPT) -> Dtype:
    """The dtype to compute in where none was asked for."""
    weight = model.model.embed_tokens.weight
    if weight.device.type == "cuda":
        return "bf16"
    if (
        weight.device.type == "cpu"
        and torch.cpu._is_avx512_bf16_supported()
        and model.num_parameters() >= LARGE
    ):
        return "bf16"
    return next(name for name, dtype in DTYPES.items() if dtype == weight.dtype)
