"""What a run is settled on: `auto` once, what does not fit refused before anything is done."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small_models import settled, with_train

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.tasks.pretraining import PretrainingTask

ALONE = DistContext(torch.device("cpu"))


@pytest.fixture
def texts(recipe: Recipe) -> PretrainingTask:
    return PretrainingTask(recipe.pretraining_data, recipe.model.block_size, base=None)


def test_auto_is_settled_once_and_kept(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    asked = with_train(recipe, precision="auto", device="auto", compile="auto")
    first = settled(asked, tmp_path / "run", texts, ALONE)
    assert first.train.precision in ("fp32", "bf16") and first.train.device != "auto"
    file = tmp_path / "run" / "recipe.toml"
    other = "bf16" if first.train.precision == "fp32" else "fp32"
    file.write_text(file.read_text().replace(f'"{first.train.precision}"', f'"{other}"'))
    # a noisy measurement today must not change what yesterday's half was computed in
    assert settled(asked, tmp_path / "run", texts, ALONE).train.precision == other


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    left_open = with_train(recipe, threads=0)
    here = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert settled(left_open, tmp_path / "run", texts, ALONE).train.threads == 3
        torch.set_num_threads(2)  # a variable that changed, or another machine
        assert settled(left_open, tmp_path / "run", texts, ALONE).train.threads == 3
    finally:
        torch.set_num_threads(here)
    with pytest.raises(ValueError, match=r"--allow train\.threads"):
        settled(with_train(recipe, threads=1), tmp_path / "run", texts, ALONE)


def test_saving_and_measuring_may_change_under_way(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    settled(recipe, tmp_path / "run", texts, ALONE)
    measuring = {
        "eval_every": 7,
        "eval_tokens": 64,
        "profile_start": 3,
        "trackers": ("tensorboard",),
    }
    changed = with_train(recipe, save_every=3, keep_last=9, **measuring)
    assert settled(changed, tmp_path / "run", texts, ALONE) == changed


def test_how_the_model_is_divided_over_ranks_may_change_under_way(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    settled(recipe, tmp_path / "run", texts, ALONE)
    changed = with_train(recipe, parallel="fsdp", hsdp_replicas=2, activation_checkpointing=True)
    assert settled(changed, tmp_path / "run", texts, ALONE) == changed


def test_with_several_ranks_the_way_is_chosen_and_a_split_that_fails_is_refused(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    found = settled(recipe, tmp_path / "run", texts, DistContext(cpu, 0, 2))
    assert found.train.parallel == "ddp"  # a CPU's ranks share its memory: nothing to fit into
    with pytest.raises(ValueError, match=r"cannot be split over 3 ranks of 8 × 32"):
        settled(recipe, tmp_path / "other", texts, DistContext(cpu, 0, 3))
    assert not (tmp_path / "other").exists()


def test_fp8_is_refused_where_it_cannot_run(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"FP8.*needs a GPU.*Choose train\.precision"):
        settled(with_train(recipe, precision="fp8"), tmp_path / "run", texts, ALONE)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnano.utils.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'wandb', which is not installed: pip install"):
        settled(with_train(recipe, trackers=("wandb",)), tmp_path / "run", texts, ALONE)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_does_not_fit_is_refused(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    wrong = replace(recipe, model=replace(recipe.model, vocab_size=512))
    with pytest.raises(ValueError, match=r"vocabulary of 300.*vocab_size is 512"):
        settled(wrong, tmp_path / "run", texts, ALONE)
    assert not (tmp_path / "run").exists()


def test_sources_that_do_not_fit_are_refused(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    sources = {"left": recipe.pretraining_data.sources["left"]}
    wrong = replace(recipe, data=replace(recipe.pretraining_data, sources=sources))
    with pytest.raises(ValueError, match=r"holds the sources left, right.*are left"):
        settled(wrong, tmp_path / "run", texts, ALONE)
