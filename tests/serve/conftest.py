"""A run with two checkpoints and one tuned on it, and a server that serves them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.serve.server_process import ServerProcess, serve
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="session")
def runs(recipe: Recipe, sft_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `small` (steps 2 and 4) and `small-sft`; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs")
    shape = replace(recipe, model=replace(recipe.model, block_size=128))
    train(with_train(shape, steps=4, save_every=2, tokens_per_step=1_024), folder / "small")
    tuned = with_train(
        sft_recipe, steps=4, save_every=4, tokens_per_step=256, init_from=str(folder / "small")
    )
    train(replace(tuned, data=replace(tuned.tuning_data, epochs=0.0)), folder / "small-sft")
    return folder


@pytest.fixture(scope="session")
def server(runs: Path) -> Iterator[ServerProcess]:
    """A server of both runs with the default settings; tests must leave it running."""
    with serve(runs) as process:
        yield process
        assert process.stop() == 0
