"""Changes to the small recipe of `conftest.py`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.resolve import resolve_recipe
from gnano.train.tasks.training_task import TrainingTask


def with_train(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))  # type: ignore[arg-type]


def settled(
    recipe: Recipe, run: Path, lessons: TrainingTask, world: DistContext, allow: Sequence[str] = ()
) -> Recipe:
    """As `settle` leaves the folder of a run that then takes a step."""
    found = resolve_recipe(recipe, run, lessons, world, allow)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n')
    return found
