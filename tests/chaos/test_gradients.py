"""A gradient or a document that is poison costs the steps that it is in, and no others."""

from pathlib import Path

from tests.chaos.faults import Fault
from tests.chaos.runs import history, output, run
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.config.train_config import StabilityConfig


def test_a_nan_in_the_gradient_of_one_of_two_ranks_is_skipped_by_both(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    assert run(chaotic, folder, Fault("", 7, "nan"), ranks=2, on=1) == [0, 0], output(folder)
    fault.append("poison: NaN in the gradient of one of two ranks")
    rows = history(folder)
    assert [row["step"] for row in rows if row["skipped"]] == [7]
    assert rows[-1]["final"] and all(row["grad_norm"] for row in rows if not row["skipped"])


def test_a_poisoned_stretch_turns_two_ranks_back_together_and_around_it(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    guard = StabilityConfig(rollback_after=2)
    patient = with_train(chaotic, stability=guard, steps=30, save_every=4)
    codes = run(patient, folder, Fault("", 9, "nan twice"), ranks=2, on=1)
    fault.append("poison: data of two steps, on one of two ranks")
    assert codes == [0, 0], output(folder)
    assert "Steps 9 to 10 were all skipped: restored step 8" in output(folder)
    per_step = patient.train.tokens_per_step // patient.model.block_size
    assert f"samples {8 * per_step:,} to {10 * per_step - 1:,}" in output(folder)
    assert [row["step"] for row in history(folder) if row["skipped"]] == []
