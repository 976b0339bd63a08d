"""A model that continues text: prefill the prompt once, then one token at a time.

prompt ─▶ ids ─▶ prefill ─▶ ┌ logits ─▶ choose ─▶ bytes ─▶ text that is certain
                            └──── one step with the KV cache ◀───┘
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from gnano.infer.sampling import Sampling, choose
from gnano.infer.text_stream import TextStream
from gnano.model import GPT, KVCache, load_model
from gnano.tokenizer import Tokenizer
from gnano.train import find_checkpoint

DEFAULT = Sampling()


class Engine:
    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "Engine":
        """From a run (its newest checkpoint), a checkpoint, or any Llama folder like it."""
        folder = find_checkpoint(path)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(folder, device), Tokenizer.load(folder))

    def stream(
        self,
        prompt: str | Sequence[int],
        tokens: int = 128,
        sampling: Sampling = DEFAULT,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Pieces of the continuation as they become certain; joined, they are its text.

        Ends after so many tokens, at end-of-text, before a stop string, or where the
        context is full. Raises ValueError for a prompt that leaves no room.
        """
        text = TextStream(stop)
        for token in self.token_ids(prompt, tokens, sampling):
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
    ) -> str:
        """The whole continuation; the same text that `stream` gives in pieces."""
        return "".join(self.stream(prompt, tokens, sampling, stop))

    @torch.inference_mode()
    def token_ids(
        self, prompt: str | Sequence[int], tokens: int, sampling: Sampling
    ) -> Iterator[int]:
        """The continuation's ids, up to and without end-of-text.

        A prompt of ids is taken as it is; one of text begins a document.
        """
        if isinstance(prompt, str):
            # a document starts with end-of-text, so the model has only seen texts begin there
            start = [self.tokenizer.end_of_text, *self.tokenizer.encode(prompt)]
        else:
            start = list(prompt)
        config = self.model.config
        if len(start) > config.block_size:
            raise ValueError(
                f"The prompt has {len(start):,} tokens and leaves no room in the model's "
                f"context of {config.block_size:,}; shorten it."
            )
        count = min(tokens, config.block_size - len(start) + 1)
        parameter = self.model.lm_head.weight
        generator = sampling.generator()
        dtype = self.model.compute_dtype or parameter.dtype
        cache = KVCache(config, 1, len(start) + count, dtype, parameter.device)
        ids = torch.tensor([start], device=parameter.device)
        for number in range(count):
            hidden_1TD = self.model.hidden(ids, cache)
            logits_V = self.model.lm_head(hidden_1TD[0, -1])
            token = choose(logits_V, sampling, generator)
            if token == self.tokenizer.end_of_text:
                return
            yield token
            if number + 1 < count:
                ids = torch.tensor([[token]], device=parameter.device)
