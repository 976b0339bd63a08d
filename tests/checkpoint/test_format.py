"""A checkpoint is a complete Hugging Face model, or it is reported and an earlier one is used."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.processes import fingerprint
from tests.small_models import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.checkpoint.format import (
    CheckpointAssets,
    read_checkpoint,
    write_checkpoint,
)
from gnano.checkpoint.run_checkpoints import (
    find_checkpoint,
    list_checkpoints,
    read_latest_valid,
    verify_checksums,
)
from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.model.hf_io import load_model
from gnano.train.trainer import train

STEPS, FIRST = 6, "step-00000003"
FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer/shard-00001-model-00001-of-00001.safetensors",
    "trainer/state.json",
]


@pytest.fixture(scope="module")
def short(recipe: Recipe) -> Recipe:
    return with_train(recipe, steps=STEPS, save_every=3)


@pytest.fixture(scope="module")
def trained(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(short, run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_transformers_loads_a_checkpoint(run: Path, recipe: Recipe) -> None:
    folder = find_checkpoint(run)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(ids).logits, load_model(folder).eval()(ids), atol=1e-4, rtol=0
        )
    text = "the river naïve 🌍"
    ours = TokenizedCorpus(Path(recipe.pretraining_data.folder)).tokenizer.encode(text)
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == ours


def test_a_checkpoint_lists_every_file(run: Path) -> None:
    folder = find_checkpoint(run)
    assert sorted(json.loads((folder / "files.json").read_text())) == FILES
    verify_checksums(folder)


@pytest.mark.parametrize("name", [*FILES, "files.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_to_any_file_is_detected_and_the_checkpoint_before_is_used(
    run: Path, short: Recipe, name: str, damage: str
) -> None:
    newest = find_checkpoint(run)
    damage_file(newest / name, damage)
    damaged: dict[Path, str] = {}
    read = partial(read_checkpoint, model_config=short.model)
    found = read_latest_valid(run, read, damaged.__setitem__)
    assert found is not None
    if (name, damage) == ("files.json", "truncate"):  # only its last newline: nothing is lost
        assert (found[0], damaged) == (newest, {})
        return
    assert found[0].name == FIRST and found[1].step == 3
    ((new_path, reason),) = damaged.items()
    # a flipped hash in files.json is reported for the file that it belongs to
    assert str(newest if name == "files.json" else newest / name) in reason
    # renamed so that no reader takes it for a checkpoint, and left to the user
    assert new_path == newest.parent / f"damaged-{newest.name}" and new_path.is_dir()
    assert [path.name for path in list_checkpoints(run)] == [FIRST]


@pytest.mark.slow
def test_a_run_with_a_damaged_checkpoint_ends_with_the_same_weights(
    run: Path, trained: Path, short: Recipe
) -> None:
    newest = find_checkpoint(run)
    damage_file(newest / "model.safetensors", "flip")
    messages: list[str] = []
    result = train(short, run, notify=lambda text, waiting=False: messages.append(text))
    assert (result.start_step, result.step) == (3, STEPS)
    assert any(str(newest / "model.safetensors") in text for text in messages), messages
    assert fingerprint(result.checkpoint) == fingerprint(trained / "checkpoints" / newest.name)
    assert [path.name for path in list_checkpoints(run)] == [FIRST, newest.name]


def damage_file(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "truncate":
            os.truncate(file, len(content) - 1)
        case "remove":
            file.unlink()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again(
    run: Path, short: Recipe
) -> None:
    for folder in list_checkpoints(run):
        os.truncate(folder / "model.safetensors", 100)
    before = sorted(p.name for p in (run / "checkpoints").iterdir())
    with pytest.raises(ValueError, match=r"model\.safetensors has 100 bytes.* start again"):
        train(short, run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == before


def test_a_snapshot_survives_writing_and_reading(run: Path, short: Recipe, tmp_path: Path) -> None:
    snapshot = read_checkpoint(find_checkpoint(run), short.model)
    assert snapshot.step == STEPS and snapshot.state["seconds"] > 0
    (tmp_path / "checkpoints").mkdir()
    tokenizer = TokenizedCorpus(Path(short.pretraining_data.folder)).tokenizer
    again = read_checkpoint(
        write_checkpoint(tmp_path, snapshot, CheckpointAssets(short.model, tokenizer)), short.model
    )
    assert again.state == snapshot.state
    for ours, theirs in (
        (snapshot.weights, again.weights),
        (snapshot.training_tensors, again.training_tensors),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_large_state_is_split_over_several_files(
    run: Path, short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnano.checkpoint.format.MAX_SHARD_BYTES", 10_000)
    snapshot = read_checkpoint(find_checkpoint(run), short.model)
    (tmp_path / "checkpoints").mkdir()
    tokenizer = TokenizedCorpus(Path(short.pretraining_data.folder)).tokenizer
    folder = write_checkpoint(tmp_path, snapshot, CheckpointAssets(short.model, tokenizer))
    assert len(list((folder / "trainer").glob("*.safetensors"))) > 5
    again = read_checkpoint(folder, short.model)
    assert all(
        torch.equal(t, again.training_tensors[name])
        for name, t in snapshot.training_tensors.items()
    )


def test_nothing_is_written_to_an_empty_mount_point(
    run: Path, short: Recipe, tmp_path: Path
) -> None:
    snapshot = read_checkpoint(find_checkpoint(run), short.model)
    empty = tmp_path / "mountpoint"
    empty.mkdir()
    with pytest.raises(FileNotFoundError):
        tokenizer = TokenizedCorpus(Path(short.pretraining_data.folder)).tokenizer
        write_checkpoint(empty, snapshot, CheckpointAssets(short.model, tokenizer))
    assert list(empty.iterdir()) == []


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


def test_other_users_may_read_a_checkpoint(run: Path) -> None:
    for file in find_checkpoint(run).rglob("*"):
        assert file.is_dir() or file.stat().st_mode & 0o044 == 0o044, file
