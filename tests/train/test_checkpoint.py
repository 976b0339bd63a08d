"""A checkpoint is a Hugging Face model that is whole, or it is refused by name."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.small import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.data import Corpus
from gnano.model import GPT, load_model
from gnano.train import Recipe, checkpoints, find_checkpoint, train, verify
from gnano.train.checkpoint import keep_newest, save_checkpoint
from gnano.train.optimizers.optimizer import Optimizer

FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer/optimizer.safetensors",
    "trainer/state.json",
]


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=6, save_every=3), run)
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
    ours = Corpus(Path(recipe.data.folder)).tokenizer.encode(text)
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == ours


def test_a_checkpoint_lists_every_file_it_has(run: Path) -> None:
    folder = find_checkpoint(run)
    assert sorted(json.loads((folder / "files.json").read_text())) == FILES
    verify(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_to_any_file_is_named_and_nothing_is_trained(
    run: Path, recipe: Recipe, name: str, damage: str
) -> None:
    file = find_checkpoint(run) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    match damage:
        case "flip":
            file.write_bytes(content)
        case "cut":
            os.truncate(file, len(content) - 1)
        case "remove":
            file.unlink()
    log = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=file.name) as refused:
        train(with_train(recipe, steps=6, save_every=3), run)
    assert "Delete" in str(refused.value)
    assert (run / "metrics.jsonl").read_bytes() == log


def test_after_deleting_a_damaged_checkpoint_the_one_before_is_used(
    run: Path, recipe: Recipe
) -> None:
    newest = find_checkpoint(run)
    shutil.rmtree(newest)
    result = train(with_train(recipe, steps=6, save_every=3), run)
    assert (result.began, result.step) == (3, 6)


def test_a_half_written_checkpoint_is_never_taken_for_one(run: Path, recipe: Recipe) -> None:
    (run / "checkpoints" / ".step-00000099.partial").mkdir()
    (run / "checkpoints" / "step-00000100.old").mkdir()
    assert [p.name for p in checkpoints(run)] == ["step-00000003", "step-00000006"]
    keep_newest(run, 1)
    assert [p.name for p in checkpoints(run)] == ["step-00000006"]


def test_a_failed_save_leaves_the_earlier_checkpoint_and_no_half_one(
    run: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(Path(recipe.data.folder))
    model = GPT.from_config(recipe.model)
    training = Optimizer(model, recipe.train.optimizer).tensors()
    # the disk refuses the last file: a real error from a real device that is always full
    monkeypatch.setattr("gnano.train.checkpoint.HASHES", "trainer/../../../full")
    (run / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(run, 9, model, training, corpus.tokenizer, {})
    assert [p.name for p in checkpoints(run)] == ["step-00000003", "step-00000006"]


def test_what_is_no_checkpoint_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


def test_others_on_the_machine_may_read_a_checkpoint(run: Path) -> None:
    for file in find_checkpoint(run).rglob("*"):
        assert file.is_dir() or file.stat().st_mode & 0o044 == 0o044, file
