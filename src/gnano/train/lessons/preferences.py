"""Preference tuning (DPO): pairs of answers, of which the chosen one is to become likelier."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnano.data.instructions import (
    Gathered,
    Pair,
    PairRows,
    Preference,
    PreferenceBatch,
    encode_pair,
    gather_preferences,
)
from gnano.model import GPT
from gnano.model.devices import widest_dtype
from gnano.train.heldout import add_up, evaluating
from gnano.train.lessons.reference import ask_base, margins
from gnano.train.lessons.tuning import Start, bring, fingerprint, start, with_epochs
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say


class Preferences:
    growing = False

    def __init__(self, begun: Start, gathered: Gathered[Preference]) -> None:
        recipe = begun.recipe
        config = recipe.instructions
        self.base, self.tokenizer, self.template = begun.base, begun.tokenizer, begun.template
        self.where = ", ".join(source.where for source in config.sources.values())
        self.complaints = gathered.complaints
        train = {name: self._encoded(found) for name, found in gathered.train.items()}
        held = {name: self._encoded(found) for name, found in gathered.heldout.items()}
        length, beta = recipe.model.block_size, recipe.train.beta
        weights = [config.sources[name].weight for name in train]
        self.rows = PairRows(
            list(train.values()), weights, length, config.seed, beta, config.packing
        )
        self.heldout = {name: PairRows([of], [1.0], length, 0, beta) for name, of in held.items()}
        parts = [*train.values(), *held.values()]
        self.fingerprint = fingerprint(_sides(part) for part in parts)

    def about(self) -> list[str]:
        held = sum(len(rows.items) for rows in self.heldout.values())
        told = f"{self.where}: {self.rows.waste()}; {held:,} pairs held out"
        return [*self.complaints, told]

    def check(self, recipe: Recipe) -> None:
        """Shape, tokenizer and template are those of the base."""

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:
        """The base's view of every pair."""
        groups = [self.rows, *self.heldout.values()]
        ask_base(groups, self.base, recipe, run, world, say, self.fingerprint)

    def measure(self, recipe: Recipe, world: World) -> "HeldoutPairs":
        return HeldoutPairs(self.heldout, recipe.train.micro_batch, world)

    def _encoded(self, preferences: Iterable[Preference]) -> list[Pair]:
        return [encode_pair(one, self.template, self.tokenizer) for one in preferences]


def open_preferences(
    recipe: Recipe, run: Path, world: World, say: Say
) -> tuple[Recipe, Preferences]:
    begun = start(recipe, run, world)
    bring(recipe.instructions, world, say)
    lessons = Preferences(begun, gather_preferences(recipe.instructions))
    return with_epochs(begun.recipe, lessons.rows.deck.size, say), lessons


@dataclass(frozen=True)
class PairLoss:
    """Sums over the held-out pairs of a category: loss, as preferred, margin; and their number."""

    sums: dict[str, tuple[float, float, float, float]]

    @property
    def value(self) -> float:
        return self._mean(0)

    def as_dict(self) -> dict[str, Any]:
        losses = {name: sums[0] / sums[3] for name, sums in self.sums.items()}
        return {
            "loss": round(self._mean(0), 5),
            "accuracy": round(self._mean(1), 5),
            "margin": round(self._mean(2), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }

    def _mean(self, which: int) -> float:
        whole = sum(sums[3] for sums in self.sums.values())
        return sum(sums[which] for sums in self.sums.values()) / whole


class HeldoutPairs:
    """How often does the model prefer what people do, and by how much more than its base?"""

    def __init__(self, rows: Mapping[str, PairRows], batch: int, world: World) -> None:
        self.rows, self.batch, self.world = dict(sorted(rows.items())), batch, world

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
    ) -> PairLoss:
        """Raises CutShortError where `stop` says, on any of the ranks, that it is to end."""
        device = self.world.device
        dtype = widest_dtype(device)

        def figures(batch: PreferenceBatch) -> Tensor:
            batch = batch.each(lambda tensor: tensor.to(device))
            better = (margins(model, batch) - batch.reference_P).to(dtype) * batch.beta
            loss = torch.nn.functional.softplus(-better).sum()
            count = torch.tensor(float(len(better)), dtype=dtype, device=device)
            return torch.stack([loss, (better > 0).to(dtype).sum(), better.sum(), count])

        found = {}
        with evaluating(model):
            for name, rows in self.rows.items():
                groups = range(0, len(rows.rows), self.batch)
                batches = (rows.of_rows(rows.rows[at : at + self.batch]) for at in groups)
                sums = add_up(figures, batches, len(groups), rows.of_rows([[]]), self.world, stop)
                found[name] = (sums[0], sums[1], sums[2], sums[3])
        return PairLoss(found)


def _sides(pairs: Sequence[Pair]) -> list[Any]:
    return [side for pair in pairs for side in (pair.chosen, pair.rejected)]
