"""Which token comes next? From logits to one id a row, each row by its own settings.

    logits ─▶ penalties ─▶ ÷ temperature ─▶ top-k ─▶ top-p ─▶ min-p ─▶ draw ─▶ id
              penalties.py └───────────── limits.py ─────────────┘

The order is that of transformers. A token is drawn with one number from the row's own
generator, the share of the probability that lies before it: what else is in the batch
changes no text.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnano.infer.limits import weights_of
from gnano.infer.penalties import History, penalise


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
    seed: int | None = None  # same seed, same text; None: new each time

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

    def generator(self) -> torch.Generator:
        """A source of randomness of its own: nobody else's draws change this text."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def history(self, prompt: Sequence[int]) -> History | None:
        """What `choose` has to know of this text; None where nothing looks back."""
        return History(prompt, self.no_repeat_ngram) if self.looks_back else None

    def sample(self, number: int) -> "Sampling":
        """The settings of sample 0, 1, 2 … of one request; 0 is the request made alone."""
        if number == 0 or self.seed is None:
            return self
        derived = np.random.SeedSequence(self.seed, spawn_key=(number,))
        seed = int(derived.generate_state(1, np.uint64)[0]) >> 1
        return dataclasses.replace(self, seed=seed)


def choose(
    logits_V: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    history: History | None = None,
) -> int:
    """Draw one token id from logits [V], which stay as they are."""
    return choose_each(logits_V[None], [sampling], [generator], [history])[0]


def choose_each(
    logits_BV: Tensor,
    samplings: Sequence[Sampling],
    generators: Sequence[torch.Generator],
    histories: Sequence[History | None],
) -> list[int]:
    """Draw one token id a row, as `choose` does of each row alone, in one go on its device."""
    logits_BV = _penalised(logits_BV, samplings, histories)
    tokens = [0] * len(samplings)
    greedy = [row for row, s in enumerate(samplings) if s.temperature == 0]
    drawn = [row for row, s in enumerate(samplings) if s.temperature > 0]
    limited = [row for row in drawn if samplings[row].limited]
    whole = [row for row in drawn if not samplings[row].limited]
    for rows in filter(None, (greedy, limited, whole)):
        # of a batch that is all alike no row is copied
        logits_RV = logits_BV if len(rows) == len(samplings) else logits_BV[rows]
        if rows is greedy:
            ids = logits_RV.argmax(-1).tolist()
        else:
            weights, order = weights_of(logits_RV, [samplings[row] for row in rows])
            places_R1 = _draw(weights, [generators[row] for row in rows])
            ids_R1 = places_R1 if order is None else order.gather(1, places_R1)
            ids = ids_R1[:, 0].tolist()
        for row, token in zip(rows, ids, strict=True):
            tokens[row] = token
    return tokens


def probabilities(logits_V: Tensor, sampling: Sampling, history: History | None = None) -> Tensor:
    """The distribution to draw from: [V] fp32, zero for what is ruled out."""
    logits_1V = _penalised(logits_V[None], [sampling], [history])
    if sampling.temperature == 0:
        nothing_V = torch.zeros_like(logits_V, dtype=torch.float32)
        return nothing_V.index_fill_(0, logits_1V[0].argmax(), 1.0)
    weights, order = weights_of(logits_1V, [sampling])
    chances = weights[0] / weights[0].sum()
    return (
        chances
        if order is None
        else chances.new_zeros(len(logits_V)).scatter_(0, order[0], chances)
    )


def _penalised(
    logits_BV: Tensor, samplings: Sequence[Sampling], histories: Sequence[History | None]
) -> Tensor:
    rows = [row for row, s in enumerate(samplings) if s.looks_back or s.logit_bias]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.to(torch.float32, copy=True)
    for row in rows:
        penalise(logits_BV[row], samplings[row], histories[row])
    return logits_BV


def _draw(weights_BK: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A place in each row, as often as its weight says: [B, 1]."""
    # not torch.multinomial: it draws a number for every token of the vocabulary
    numbers = [torch.rand((), dtype=torch.float64, generator=g) for g in generators]
    share_B1 = torch.stack(numbers)[:, None].to(weights_BK.device)
    reached_BK = weights_BK.cumsum(-1, dtype=torch.float64)
    total_B1 = reached_BK[:, -1:]
    if not bool(total_B1.isfinite().all()):
        raise ValueError(
            "The model's logits are no finite numbers, so no token can be drawn: its weights "
            "have overflowed or are damaged; take an earlier checkpoint."
        )
    # rounding must not reach the end of the row: the last tokens may be ruled out
    aim_B1 = torch.minimum(share_B1 * total_B1, total_B1.nextafter(total_B1.new_zeros(())))
    return torch.searchsorted(reached_BK, aim_B1, right=True)
