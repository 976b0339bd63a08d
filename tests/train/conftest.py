"""Fixtures of the tests of training."""

import pytest

from gnano.config.recipe import Recipe
from gnano.train.training_task import PretrainingTask


@pytest.fixture
def task(recipe: Recipe) -> PretrainingTask:
    return PretrainingTask(recipe.pretraining_data, base=None)
