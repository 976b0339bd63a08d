"""Errors of `runs`, `info` and `weights` are one sentence with exit code 2, and change nothing."""

import shutil
from pathlib import Path

import pytest
from tests.cli.runner import error_sentence, one_sentence, output, run_gnano


@pytest.fixture
def run_copy(run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_verify_lists_all_checkpoints_and_exits_with_2_for_damage(capsys, run_copy):
    weights = run_copy / "checkpoints" / "step-00000002" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    output(capsys, "info", run_copy)
    code, out, err = run_gnano(capsys, "info", run_copy, "--verify")
    assert code == 2 and "step-00000002" in one_sentence(err)
    assert f"damaged: {weights}" in out
    assert f"{run_copy / 'checkpoints' / 'step-00000004'}: intact\n" in out


def test_a_path_without_checkpoints_cannot_be_verified(capsys, run_copy, recipe):
    shutil.rmtree(run_copy / "checkpoints")
    assert "holds no checkpoint" in error_sentence(capsys, "info", run_copy, "--verify")
    data = recipe.pretraining_data.folder
    assert "gnano data verify" in error_sentence(capsys, "info", data, "--verify")


def test_an_empty_folder_has_no_runs_and_a_missing_one_is_an_error(capsys, tmp_path):
    assert "holds no run" in output(capsys, "runs", tmp_path)
    assert output(capsys, "runs", tmp_path, "--json") == ""
    assert str(tmp_path / "no") in error_sentence(capsys, "runs", tmp_path / "no")


def test_weights_refuses_existing_and_damaged_folders(capsys, run_copy, tmp_path):
    out = tmp_path / "out"
    assert "is a run" in error_sentence(capsys, "weights", run_copy, run_copy)
    assert str(tmp_path / "no") in error_sentence(capsys, "weights", tmp_path / "no", out)
    (run_copy / "checkpoints" / "step-00000004" / "config.json").write_text("{}")
    assert "config.json" in error_sentence(capsys, "weights", run_copy, out)
    assert not out.exists()
