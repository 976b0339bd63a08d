"""How is the next token drawn? The settings of one text; `choosing` follows them.

Nothing here needs torch until a text begins, so that they are a command's options as well.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gnano.infer.penalties import History


@dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float = 0.8  # 0: always the likeliest; 1: as the model believes
    top_k: int = 0  # only the k likeliest; 0: all
    top_p: float = 1.0  # only the likeliest that together reach this probability
    min_p: float = 0.0  # only those at least this share as likely as the likeliest; 0: all
    repetition_penalty: float = 1.0  # divides the logits of what the text has; 1: off
    presence_penalty: float = 0.0  # taken from the logits of what the answer has; 0: off
    frequency_penalty: float = 0.0  # the same, once for every time it has it; 0: off
    no_repeat_ngram: int = 0  # no run of so many tokens comes twice; 0: off
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, what its logit gains), ids differ
    seed: int | None = None  # same seed and prompts, same text; None: new each time

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0 <= self.temperature <= 100, "in 0 … 100"),
            "top_k": (0 <= self.top_k < math.inf, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p <= 1, "in 0 … 1"),
            "repetition_penalty": (0 < self.repetition_penalty <= 100, "in (0, 100]"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "in -2 … 2"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "in -2 … 2"),
            "no_repeat_ngram": (0 <= self.no_repeat_ngram < math.inf, "0 (off) or more"),
            "seed": (self.seed is None or 0 <= self.seed < 2**63, "in 0 … 2^63 - 1"),
        }
        for name, (within, words) in ranges.items():
            if not within:
                value = getattr(self, name)
                raise ValueError(f"{name.replace('_', '-')} is {value}; it must be {words}.")
        for token, bias in self.logit_bias:
            if token < 0:
                raise ValueError(f"logit-bias names token {token}; an id must be 0 or more.")
            if not -100 <= bias <= 100:
                raise ValueError(
                    f"logit-bias of token {token} is {bias}; it must be in -100 … 100."
                )
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise ValueError("logit-bias names a token twice; give each id one bias.")

    @property
    def looks_back(self) -> bool:
        """Whether the text so far has a say."""
        return bool(
            self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
            or self.no_repeat_ngram
        )

    @property
    def limited(self) -> bool:
        """Whether top-k, top-p or min-p may rule tokens out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def generator(self) -> "torch.Generator":
        """A source of randomness of its own: nobody else's draws change this text."""
        import torch

        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def history(self, prompt: Sequence[int]) -> "History | None":
        """What choosing has to know of this text; None where nothing looks back."""
        from gnano.infer.penalties import History

        return History(prompt, self.no_repeat_ngram) if self.looks_back else None

    def sample(self, number: int) -> "Sampling":
        """The settings of sample 0, 1, 2 … of one request; 0 is the request made alone."""
        if number == 0 or self.seed is None:
            return self
        import numpy as np

        derived = np.random.SeedSequence(self.seed, spawn_key=(number,))
        seed = int(derived.generate_state(1, np.uint64)[0]) >> 1
        return dataclasses.replace(self, seed=seed)
