"""A checkpoint is a Hugging Face model that is whole, or another one is taken and it is named."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.processes import fingerprint
from tests.small_models import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import (
    CheckpointAssets,
    find_checkpoint,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from gnano.config.recipe import Recipe
from gnano.data.tokenized_corpus import TokenizedCorpus
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


def test_transformers_opens_a_checkpoint_as_it_is(run: Path, recipe: Recipe) -> None:
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


def test_a_checkpoint_lists_every_file_it_has(run: Path) -> None:
    folder = find_checkpoint(run)
    assert sorted(json.loads((folder / "files.json").read_text())) == FILES
    verify_checksums(folder)


@pytest.mark.parametrize("name", [*FILES, "files.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_to_any_file_is_named_and_the_checkpoint_before_is_used(
    run: Path, trained: Path, short: Recipe, name: str, damage: str
) -> None:
    newest = find_checkpoint(run)
    file = newest / name
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "cut":
            os.truncate(file, len(content) - 1)
        case "remove":
            file.unlink()
    said: list[str] = []
    result = train(short, run, notify=lambda text, waiting=False: said.append(text))
    if (name, damage) == ("files.json", "cut"):  # its last newline: nothing is lost
        assert result.start_step == STEPS
        return
    assert (result.start_step, result.step) == (3, STEPS)
    named = newest if name == "files.json" else file  # a flipped hash accuses the file it is of
    assert any(str(named) in text for text in said), said
    assert fingerprint(result.checkpoint) == fingerprint(trained / "checkpoints" / newest.name)
    # set aside under a name that no reader takes for a checkpoint, and left to the user
    assert [p.name for p in list_checkpoints(run)] == [FIRST, newest.name]
    assert (newest.parent / f"damaged-{newest.name}").is_dir()


def test_where_every_checkpoint_is_damaged_nothing_is_begun_anew(run: Path, short: Recipe) -> None:
    for folder in list_checkpoints(run):
        os.truncate(folder / "model.safetensors", 100)
    before = sorted(p.name for p in (run / "checkpoints").iterdir())
    with pytest.raises(ValueError, match=r"model\.safetensors has 100 bytes .* begin anew"):
        train(short, run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == before


def test_what_is_read_is_what_was_written(run: Path, short: Recipe, tmp_path: Path) -> None:
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


def test_large_states_lie_in_several_files(
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


def test_where_a_disk_has_gone_nothing_is_written_in_its_place(
    run: Path, short: Recipe, tmp_path: Path
) -> None:
    snapshot = read_checkpoint(find_checkpoint(run), short.model)
    empty = tmp_path / "mountpoint"
    empty.mkdir()
    with pytest.raises(FileNotFoundError):
        tokenizer = TokenizedCorpus(Path(short.pretraining_data.folder)).tokenizer
        write_checkpoint(empty, snapshot, CheckpointAssets(short.model, tokenizer))
    assert list(empty.iterdir()) == []


def test_what_is_no_checkpoint_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


def test_others_on_the_machine_may_read_a_checkpoint(run: Path) -> None:
    for file in find_checkpoint(run).rglob("*"):
        assert file.is_dir() or file.stat().st_mode & 0o044 == 0o044, file
