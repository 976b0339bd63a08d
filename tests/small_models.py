"""Variants of the small recipe of `conftest.py`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.resolve import resolve_recipe
from gnano.train.training_task import TrainingTask


def with_train(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))  # type: ignore[arg-type]


def resolve_started(
    recipe: Recipe,
    run: Path,
    task: TrainingTask,
    allow: Sequence[str] = (),
    world: DistContext | None = None,
) -> Recipe:
    """Resolve the recipe, and let its run have taken a step."""
    world = world or DistContext(torch.device("cpu"))
    resolved = resolve_recipe(recipe, run, task, world, allow)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n')
    return resolved
