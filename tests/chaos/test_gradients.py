"""Only the steps with a gradient that is not finite are skipped."""

from pathlib import Path

import pytest
from tests.chaos.faults import Fault
from tests.chaos.runs import history, output, run
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.config.train_config import StabilityConfig

pytestmark = pytest.mark.slow


@pytest.mark.ranks
def test_a_nan_in_the_gradient_of_one_of_two_ranks_is_skipped_by_both(
    chaos_recipe: Recipe, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    assert run(chaos_recipe, folder, Fault("", 7, "nan"), ranks=2, on=1) == [0, 0], output(folder)
    survived.append("NaN: gradient of one of two ranks")
    rows = history(folder)
    assert [row["step"] for row in rows if row["skipped"]] == [7]
    assert rows[-1]["final"] and all(row["grad_norm"] for row in rows if not row["skipped"])


@pytest.mark.ranks
def test_two_ranks_roll_back_together_and_skip_data_with_nan_gradients(
    chaos_recipe: Recipe, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    stability = StabilityConfig(rollback_after=2)
    recipe = with_train(chaos_recipe, stability=stability, steps=30, save_every=4)
    codes = run(recipe, folder, Fault("", 9, "nan twice"), ranks=2, on=1)
    survived.append("NaN: data of two steps, on one of two ranks")
    assert codes == [0, 0], output(folder)
    assert "Steps 9 to 10 were all skipped: restored step 8" in output(folder)
    per_step = recipe.train.tokens_per_step // recipe.model.block_size
    assert f"samples {8 * per_step:,} to {10 * per_step - 1:,}" in output(folder)
    assert [row["step"] for row in history(folder) if row["skipped"]] == []
