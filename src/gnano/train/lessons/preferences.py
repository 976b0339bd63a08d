"""Preference tuning (DPO): pairs of answers, of which the chosen one is to become likelier.

    base, all pairs ─▶ log-prob of chosen − of rejected ─▶ run/reference.safetensors

The base evaluates each pair once, before the first step, and the result is kept in the run. Then
no second model is held in memory while the first one trains, and a run that resumes has the same
figures to the last bit.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.data.instructions.config import InstructionConfig
from gnano.data.instructions.conversations import Preference
from gnano.data.instructions.encoding import Pair, encode_pair
from gnano.data.instructions.gathering import Gathered, gather_preferences
from gnano.data.instructions.preference_batch import PreferenceBatch
from gnano.data.instructions.rows import PairRows
from gnano.model.devices import widest_dtype
from gnano.model.folder import save_tensors
from gnano.model.gpt import GPT
from gnano.train.base import Base
from gnano.train.heldout import evaluating
from gnano.train.lessons.lessons import HeldoutExamples, SummedLoss, TuningTask
from gnano.train.precision import DTYPES
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say
from gnano.utils.atomic_io import replacing

NAME = "reference.safetensors"


class Preferences(TuningTask):
    rows: PairRows

    def load_records(self, config: InstructionConfig) -> Gathered[Preference]:
        return gather_preferences(config)

    def encode(self, record: Preference) -> Pair:
        return encode_pair(record, self.template, self.tokenizer)

    def pack(self, sources: list[Any], weights: list[float], seed: int, packing: bool) -> PairRows:
        return PairRows(sources, weights, self.length, seed, self.beta, packing)

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:
        """Set the reference margin of every pair, from the run's file or by the base."""
        groups: list[PairRows] = [self.rows, *self.heldout.values()]
        key = {"data": self.fingerprint, "base": self.base.sha256}
        known = world.by_first(partial(_read_margins, run / NAME, key))
        if known is None or len(known) != sum(len(rows.items) for rows in groups):
            model = _load_base(self.base, recipe, world)
            known = np.concatenate(
                [_reference_margins(model, rows, recipe, world, say) for rows in groups]
            )
            world.by_first(partial(_write_margins, run / NAME, known, key))
        for rows in groups:
            rows.reference, known = known[: len(rows.items)], known[len(rows.items) :]

    def measure(self, recipe: Recipe, world: World) -> HeldoutExamples:
        return HeldoutExamples(self.heldout, recipe.train.micro_batch, world, _pair_cost, PairLoss)


class PairLoss(SummedLoss):
    """Loss, pairs ranked as preferred, margins, and number of pairs, by category."""

    @property
    def value(self) -> float:
        return self.total(0) / self.total(3)

    def as_dict(self) -> dict[str, Any]:
        losses = {name: sums[0] / sums[3] for name, sums in self.sums.items()}
        return {
            "loss": round(self.value, 5),
            "accuracy": round(self.total(1) / self.total(3), 5),
            "margin": round(self.total(2) / self.total(3), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }


def _pair_cost(model: GPT, batch: PreferenceBatch) -> Tensor:
    """The sums of `PairLoss` over a batch [4], on the model's device."""
    device = next(model.parameters()).device
    dtype = widest_dtype(device)
    batch = batch.each(lambda tensor: tensor.to(device))
    better = (margins(model, batch) - batch.reference_P).to(dtype) * batch.beta
    loss = torch.nn.functional.softplus(-better).sum()
    count = torch.tensor(float(len(better)), dtype=dtype, device=device)
    return torch.stack([loss, (better > 0).to(dtype).sum(), better.sum(), count])


def margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Log-probability of the chosen answer − of the rejected one [P], fp32."""
    found: list[Tensor] = []

    def score(nats_BT: Tensor) -> tuple[Tensor, Tensor]:
        found.append(batch.margins(nats_BT))
        return nats_BT.new_zeros(()), torch.zeros_like(nats_BT)

    model.loss(batch.inputs_BT, batch.targets_BT, segments_BT=batch.segments_BT, score=score)
    return found[0]


def _load_base(base: Base, recipe: Recipe, world: World) -> GPT:
    model = GPT.from_config(recipe.model).to(world.device)
    base.load_into(model)
    model.compute_dtype = DTYPES[recipe.train.precision]
    return model


def _reference_margins(
    model: GPT, rows: PairRows, recipe: Recipe, world: World, say: Say
) -> NDArray[np.float32]:
    """Of all pairs, in their order; each rank computes its share of the rows."""
    found = torch.zeros(len(rows.items), dtype=widest_dtype(world.device), device=world.device)
    batch_rows, all_rows = recipe.train.micro_batch, len(rows.rows)
    with evaluating(model):
        for number, first in enumerate(range(0, all_rows, batch_rows)):
            world.doing("asking the base about the pairs", math.inf)
            if number % world.size == world.rank:
                say(
                    f"the base's view of the pairs: row {first + 1:,} of {all_rows:,}", waiting=True
                )
                group = rows.rows[first : first + batch_rows]
                batch = rows.of_rows(group).each(lambda tensor: tensor.to(world.device))
                pairs = torch.tensor([index for row in group for index in row])
                found[pairs.to(world.device)] = margins(model, batch).to(found.dtype)
    return world.sum(found).float().cpu().numpy()


def _read_margins(path: Path, key: dict[str, str]) -> NDArray[np.float32] | None:
    """None where there are none yet, or those of other data or another base."""
    try:
        with safe_open(path, framework="np") as file:
            if not key.items() <= (file.metadata() or {}).items():
                return None
            found: NDArray[np.float32] = file.get_tensor("margins")
            return found
    except (OSError, SafetensorError):
        return None


def _write_margins(path: Path, found: NDArray[np.float32], key: dict[str, str]) -> None:
    with replacing(path) as temporary:
        save_tensors({"margins": torch.from_numpy(found)}, temporary, key)
