"""A mistake in looking after runs ends in a sentence and exit code 2, and harms nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=4, save_every=2), folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def gnano(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gnano", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    said = [line for line in done.stderr.splitlines() if line.startswith("gnano: ")]
    assert done.returncode == 2 and len(said) == 1 and said[0].endswith("."), done.stderr
    return said[0]


def test_verify_lists_all_checkpoints_and_exits_with_2_for_damage(
    run: Path,
) -> None:
    weights = run / "checkpoints" / "step-00000002" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert gnano("info", run).returncode == 0
    done = gnano("info", run, "--verify")
    assert "step-00000002" in refused(done)
    assert f"damaged: {weights}" in done.stdout
    assert f"{run / 'checkpoints' / 'step-00000004'}: intact\n" in done.stdout


def test_a_path_without_checkpoints_cannot_be_verified(run: Path, recipe: Recipe) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "holds no checkpoint" in refused(gnano("info", run, "--verify"))
    assert "gnano data verify" in refused(gnano("info", recipe.pretraining_data.folder, "--verify"))


def test_an_empty_folder_has_no_runs_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    done = gnano("runs", tmp_path)
    assert done.returncode == 0 and "holds no run" in done.stdout
    done = gnano("runs", tmp_path, "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert str(tmp_path / "no") in refused(gnano("runs", tmp_path / "no"))


def test_weights_refuses_existing_and_damaged_folders(run: Path, tmp_path: Path) -> None:
    assert "is a run" in refused(gnano("weights", run, run))
    assert "does not exist" in refused(gnano("weights", tmp_path / "no", tmp_path / "out"))
    (run / "checkpoints" / "step-00000004" / "config.json").write_text("{}")
    assert "config.json" in refused(gnano("weights", run, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
