from pathlib import Path

import pytest
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 steps with two checkpoints; tests must not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=4, save_every=2), folder)
    return folder
