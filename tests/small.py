"""Changes to the small recipe of `conftest.py`."""

from dataclasses import replace

from gnano.train import Recipe


def with_train(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))  # type: ignore[arg-type]
