"""Which token comes next? From logits to one id: temperature, top-k, top-p, seed."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float = 0.8  # 0: always the likeliest; 1: as the model believes
    top_k: int = 0  # only the k likeliest; 0: all
    top_p: float = 1.0  # only the likeliest that together reach this probability
    seed: int | None = None  # same seed, same text; None: new each time

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature is {self.temperature}; it must be in 0 … 100.")
        if self.top_k < 0:
            raise ValueError(f"top-k is {self.top_k}; it must be 0 (all) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p is {self.top_p}; it must be in (0, 1].")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must be in 0 … 2^63 - 1.")

    def generator(self) -> torch.Generator:
        """A source of randomness of its own: nobody else's draws change this text."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The distribution to draw from: [V] fp32, zero for what top-k and top-p exclude."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits_V).index_fill_(0, logits_V.argmax(), 1.0)
    # relative to the largest, so that no temperature can make them overflow
    scaled_V = (logits_V - logits_V.max()) / sampling.temperature
    likely, ids = scaled_V.softmax(-1).sort(descending=True, stable=True)
    # top-k first, then top-p of what is left, as transformers has it
    if 0 < sampling.top_k < len(likely):
        likely[sampling.top_k :] = 0
        likely /= likely.sum()
    if sampling.top_p < 1:
        before = likely.cumsum(-1, dtype=torch.float64) - likely
        likely[before >= sampling.top_p] = 0
    return torch.zeros_like(logits_V).scatter_(0, ids, likely / likely.sum())


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw one token id from logits [V]."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    chances = probabilities(logits_V.float().cpu(), sampling)
    return int(torch.multinomial(chances, 1, generator=generator))
