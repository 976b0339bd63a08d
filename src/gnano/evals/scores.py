"""How many items did the model get right? Accuracy, by characters too, and how sure that is.

acc        the likeliest answer is the right one; of a task of one answer: each of its tokens
           was the likeliest
acc_norm   the same by log-likelihood per character, so that long answers are not worse off
±          the standard error: what another sample of as many items would differ by
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gnano.evals.gathering import Sheet
from gnano.evals.items import Item

Likelihoods = Sequence[tuple[float, bool]]  # of an item's options: nats, each token the likeliest?


@dataclass(frozen=True)
class Accuracy:
    value: float
    error: float  # standard error; 0 of a single item

    @classmethod
    def share(cls, right: float, items: int) -> "Accuracy":
        mean = right / items
        return cls(mean, math.sqrt(mean * (1 - mean) / max(1, items - 1)))

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True, kw_only=True)
class Score:
    task: str
    title: str
    items: int
    shots: int
    chance: float | None  # accuracy of a guess; None where that is not told
    acc: Accuracy
    acc_norm: Accuracy | None  # None where length says nothing
    perplexity: float | None = None  # per answer, of a task of one answer
    overlap: dict[str, Any] | None = None  # with the training data, if that was looked for

    @property
    def main(self) -> Accuracy:
        return self.acc_norm or self.acc

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Score":
        norm = content["acc_norm"]
        accuracies = {"acc": Accuracy(**content["acc"]), "acc_norm": norm and Accuracy(**norm)}
        return cls(**{**content, **accuracies})


def score(sheet: Sheet, found: Sequence[Likelihoods]) -> Score:
    """Of a task's items and what a model found of each."""
    each = [right(item, nats) for item, nats in zip(sheet.items, found, strict=True)]
    count = len(sheet.items)
    lone = all(len(item.options) == 1 for item in sheet.items)
    nats = -sum(options[0][0] for options in found) / len(found)
    guess = [1 / len(i.options) if len(i.options) > 1 else 0.0 for i in sheet.items]
    return Score(
        task=sheet.task,
        title=sheet.title,
        items=count,
        shots=sheet.shots,
        chance=sum(guess) / len(guess),
        acc=Accuracy.share(sum(plain for plain, _ in each), count),
        acc_norm=Accuracy.share(sum(n for _, n in each), count) if sheet.normalised else None,
        perplexity=math.exp(min(nats, 700.0)) if lone else None,
    )


def right(item: Item, found: Likelihoods) -> tuple[bool, bool]:
    """Is it found, by log-likelihood, and by that per character of the answer?"""
    if len(found) == 1:
        return found[0][1], found[0][1]
    nats = [one for one, _ in found]
    lengths = [len(answer) for answer in item.answers] * (len(nats) // len(item.answers))
    each = [one / length for one, length in zip(nats, lengths, strict=True)]
    return _first_of_the_largest(nats) == item.gold, _first_of_the_largest(each) == item.gold


def _first_of_the_largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda number: (values[number], -number))
