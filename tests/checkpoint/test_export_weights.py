"""Exported weights are those of the checkpoint, complete and loadable, and the run is unchanged."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.small_models import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.checkpoint.export_weights import export_weights
from gnano.checkpoint.run_checkpoints import find_checkpoint, verify_checksums
from gnano.config.recipe import Recipe
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model
from gnano.train.trainer import train

MODEL = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=6, save_every=3), run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_export_has_the_model_and_no_training_state(run: Path, tmp_path: Path) -> None:
    out = export_weights(run, tmp_path / "a" / "exported")
    assert {p.name for p in out.iterdir()} == {*MODEL, "files.json"}
    assert set(json.loads((out / "files.json").read_text())) == MODEL
    newest = find_checkpoint(run)
    assert all((out / name).read_bytes() == (newest / name).read_bytes() for name in MODEL)
    verify_checksums(out)
    verify_checksums(newest)
    assert [p.name for p in out.parent.iterdir()] == ["exported"]


def test_transformers_and_the_engine_load_the_export(run: Path, tmp_path: Path) -> None:
    out = export_weights(run / "checkpoints" / "step-00000003", tmp_path / "exported")
    theirs = AutoModelForCausalLM.from_pretrained(out)
    ids = torch.randint(0, 300, (2, 20))
    ours = load_model(run / "checkpoints" / "step-00000003").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(out)("the river")["input_ids"]
    assert Engine.load(out).generate("the river", max_new_tokens=5)


def test_an_edit_of_the_exported_config_does_not_change_the_checkpoint(
    run: Path, tmp_path: Path
) -> None:
    out = export_weights(run, tmp_path / "exported")
    with (out / "config.json").open("a") as file:
        file.write(" ")
    verify_checksums(find_checkpoint(run))
    with pytest.raises(ValueError, match=r"config\.json"):
        verify_checksums(out)


def test_the_export_survives_the_removal_of_the_run(run: Path, tmp_path: Path) -> None:
    out = export_weights(run, tmp_path / "exported")
    shutil.rmtree(run)
    verify_checksums(out)
    again = export_weights(out, tmp_path / "again")
    verify_checksums(again)
    assert {p.name for p in again.iterdir()} == {*MODEL, "files.json"}


def test_on_another_file_system_weights_are_copied(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    out = elsewhere / f"gnano-{os.getpid()}" / "exported"
    try:
        export_weights(run, out)
        verify_checksums(out)
        assert (out / "model.safetensors").stat().st_nlink == 1
    finally:
        shutil.rmtree(out.parent, ignore_errors=True)


@pytest.mark.parametrize("name", sorted(MODEL))
def test_a_damaged_file_is_named_and_nothing_is_written(
    run: Path, tmp_path: Path, name: str
) -> None:
    file = find_checkpoint(run) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="does not match its checksum") as refused:
        export_weights(run, tmp_path / "b" / "exported")
    assert str(file) in str(refused.value)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_damaged_training_state_does_not_matter(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(find_checkpoint(run) / "trainer")
    out = export_weights(run, tmp_path / "exported")
    verify_checksums(out)
    assert {p.name for p in out.iterdir()} == {*MODEL, "files.json"}


def test_a_manipulated_list_cannot_add_other_files(run: Path, tmp_path: Path) -> None:
    (run / "secret").write_text("secret")
    listed = find_checkpoint(run) / "files.json"
    entries = json.loads(listed.read_text())
    entries |= {"../../secret": [6, "0"], str(run / "secret"): [6, "0"], "..": [6, "0"]}
    listed.write_text(json.dumps(entries))
    out = export_weights(run, tmp_path / "exported")
    assert {p.name for p in out.iterdir()} == {*MODEL, "files.json"}


def test_an_existing_folder_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    with pytest.raises(FileExistsError, match="already exists"):
        export_weights(run, tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []


def test_a_checkpoint_without_a_list_of_files_is_refused(run: Path, tmp_path: Path) -> None:
    (find_checkpoint(run) / "files.json").unlink()
    with pytest.raises(ValueError, match=r"files\.json cannot be read"):
        export_weights(run, tmp_path / "exported")
    (find_checkpoint(run) / "files.json").write_text("{}")
    with pytest.raises(ValueError, match="lists no model"):
        export_weights(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("place", ["checkpoints/step-00000009", "exported"])
def test_an_export_into_a_run_is_refused(run: Path, place: str) -> None:
    with pytest.raises(ValueError, match="which is a run: choose another output path"):
        export_weights(run, run / place)
    assert not (run / place).exists()


def test_a_run_does_not_resume_from_an_exported_folder(
    run: Path, tmp_path: Path, recipe: Recipe
) -> None:
    exported = export_weights(run, tmp_path / "exported")
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    shutil.copytree(exported, run / "checkpoints" / "step-00000005")
    result = train(with_train(recipe, steps=6, save_every=3), run)
    assert (result.start_step, result.step) == (3, 6)
