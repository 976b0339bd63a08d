"""How well does the model know answers that it never saw? Their loss, by the questions' category.

Nats a token is what tuning is usually told in; bits a byte compares across tokenizers, and with
the loss on texts. All held-out answers are measured each time, so that any two figures compare.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnano.data.instructions import Example, InstructionRows
from gnano.model import GPT
from gnano.train.heldout import add_up, cost, evaluating
from gnano.train.ranks.world import World


@dataclass(frozen=True)
class AnswerLoss:
    """Nats, bytes and tokens of the answers, their ends among them, by category."""

    nats: dict[str, float]
    bytes: dict[str, int]
    tokens: dict[str, int]

    @property
    def per_token(self) -> float:
        return sum(self.nats.values()) / sum(self.tokens.values())

    @property
    def bits_per_byte(self) -> float:
        return sum(self.nats.values()) / math.log(2) / sum(self.bytes.values())

    @property
    def value(self) -> float:
        return self.bits_per_byte

    def by_category(self) -> dict[str, float]:
        """Nats a token."""
        return {name: nats / self.tokens[name] for name, nats in self.nats.items()}

    def as_dict(self) -> dict[str, Any]:
        sources = {name: nats / math.log(2) / self.bytes[name] for name, nats in self.nats.items()}
        return {
            "bits_per_byte": round(self.bits_per_byte, 5),
            "sources": {name: round(bits, 5) for name, bits in sources.items()},
            "loss": round(self.per_token, 5),
            "losses": {name: round(nats, 5) for name, nats in self.by_category().items()},
        }


class HeldoutAnswers:
    def __init__(
        self,
        examples: Mapping[str, Sequence[Example]],
        length: int,
        batch: int,
        token_bytes: NDArray[np.int64],
        world: World | None = None,
    ) -> None:
        self.batch = batch
        self.world = world or World(torch.device("cpu"))
        self.token_bytes = torch.from_numpy(token_bytes.astype(np.int64))
        self.rows = {
            name: InstructionRows([found], [1.0], length, seed=0)
            for name, found in sorted(examples.items())
        }

    def __bool__(self) -> bool:
        return bool(self.rows)

    def covers(self, tokens: int) -> bool:
        return True

    def lacking(self, tokens: int) -> str | None:
        return None

    def loss(
        self,
        model: GPT,
        tokens: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> AnswerLoss:
        """Raises CutShortError where `stop` says, on any of the ranks, that it is to end."""
        figures = {}
        with evaluating(model):
            for name, rows in self.rows.items():
                groups = range(0, len(rows.rows), self.batch)
                batches = (rows.of_rows(rows.rows[at : at + self.batch]) for at in groups)
                work = partial(cost, model, self.token_bytes)
                empty = rows.of_rows([[]])
                figures[name] = add_up(work, batches, len(groups), empty, self.world, stop)
        return AnswerLoss(
            {name: nats for name, (nats, _, _) in figures.items()},
            {name: round(size) for name, (_, size, _) in figures.items()},
            {name: round(count) for name, (_, _, count) in figures.items()},
        )
