"""What did the base think of each pair? Asked once, before the first step, and kept in the run.

    base, all pairs ─▶ log-prob of chosen − of rejected ─▶ run/reference.safetensors

Then no second model is held in memory while the first one learns, and a run that goes on has the
same figures to the last bit.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.data.instructions import PairRows, PreferenceBatch
from gnano.model import GPT, save_tensors
from gnano.model.devices import widest_dtype
from gnano.train.base import Base
from gnano.train.heldout import evaluating
from gnano.train.precision import DTYPES
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say
from gnano.utils.atomic_io import replacing

NAME = "reference.safetensors"


def ask_base(
    groups: Sequence[PairRows],
    base: Base,
    recipe: Recipe,
    run: Path,
    world: World,
    say: Say,
    fingerprint: str,
) -> None:
    """Set the reference of all pairs of these rows; `fingerprint` stands for what they hold."""
    of = {"data": fingerprint, "base": base.sha256}
    known = world.by_first(partial(_read, run / NAME, of))
    if known is None or len(known) != sum(len(rows.items) for rows in groups):
        model = _model(base, recipe, world)
        known = np.concatenate([_asked(model, rows, recipe, world, say) for rows in groups])
        world.by_first(partial(_write, run / NAME, known, of))
    for rows in groups:
        rows.reference, known = known[: len(rows.items)], known[len(rows.items) :]


def margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Log-probability of the chosen answer − of the rejected one [P], fp32."""
    found: list[Tensor] = []

    def score(nats_BT: Tensor) -> tuple[Tensor, Tensor]:
        found.append(batch.margins(nats_BT))
        return nats_BT.new_zeros(()), torch.zeros_like(nats_BT)

    model.loss(batch.inputs_BT, batch.targets_BT, segments_BT=batch.segments_BT, score=score)
    return found[0]


def _model(base: Base, recipe: Recipe, world: World) -> GPT:
    weights = base.weights(recipe.model)
    model = GPT.from_config(recipe.model).to(world.device)
    for name, parameter in model.named_parameters():
        parameter.detach().copy_(weights[name])
    model.compute_dtype = DTYPES[recipe.train.precision]
    return model


def _asked(
    model: GPT, rows: PairRows, recipe: Recipe, world: World, say: Say
) -> NDArray[np.float32]:
    """Of all pairs, in their order; each rank asks about its share of the rows."""
    found = torch.zeros(len(rows.items), dtype=widest_dtype(world.device), device=world.device)
    at_once, whole = recipe.train.micro_batch, len(rows.rows)
    with evaluating(model):
        for number, first in enumerate(range(0, whole, at_once)):
            world.doing("asking the base about the pairs", math.inf)
            if number % world.size == world.rank:
                say(f"the base's view of the pairs: row {first + 1:,} of {whole:,}", waiting=True)
                group = rows.rows[first : first + at_once]
                batch = rows.of_rows(group).each(lambda tensor: tensor.to(world.device))
                numbers = torch.tensor([index for row in group for index in row])
                found[numbers.to(world.device)] = margins(model, batch).to(found.dtype)
    return world.sum(found).float().cpu().numpy()


def _read(path: Path, of: dict[str, str]) -> NDArray[np.float32] | None:
    """None where there is none yet, or one of other data or another base."""
    try:
        with safe_open(path, framework="np") as file:
            if not of.items() <= (file.metadata() or {}).items():
                return None
            found: NDArray[np.float32] = file.get_tensor("margins")
            return found
    except (OSError, SafetensorError):
        return None


def _write(path: Path, found: NDArray[np.float32], of: dict[str, str]) -> None:
    with replacing(path) as temporary:
        save_tensors({"margins": torch.from_numpy(found)}, temporary, of)
