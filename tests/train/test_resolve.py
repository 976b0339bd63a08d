"""Resolving a recipe: `auto` is chosen once, and what does not fit is refused first."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small_models import resolve_started, with_train

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.training_task import PretrainingTask


def test_auto_values_are_chosen_once(recipe: Recipe, task: PretrainingTask, tmp_path: Path) -> None:
    requested = with_train(recipe, precision="auto", device="auto", compile="auto")
    first = resolve_started(requested, tmp_path / "run", task)
    assert first.train.precision in ("fp32", "bf16") and first.train.device != "auto"
    file = tmp_path / "run" / "recipe.toml"
    other = "bf16" if first.train.precision == "fp32" else "fp32"
    file.write_text(file.read_text().replace(f'"{first.train.precision}"', f'"{other}"'))
    # a noisy measurement must not change the precision of a resumed run
    assert resolve_started(requested, tmp_path / "run", task).train.precision == other


def test_resumed_run_keeps_its_number_of_threads(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    unset = with_train(recipe, threads=0)
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert resolve_started(unset, tmp_path / "run", task).train.threads == 3
        torch.set_num_threads(2)  # as on another machine
        assert resolve_started(unset, tmp_path / "run", task).train.threads == 3
    finally:
        torch.set_num_threads(num_threads)
    with pytest.raises(ValueError, match=r"--allow train\.threads"):
        resolve_started(with_train(recipe, threads=1), tmp_path / "run", task)


def test_saving_and_evaluation_may_change_on_resume(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    resolve_started(recipe, tmp_path / "run", task)
    changes = {
        "eval_every": 7,
        "eval_tokens": 64,
        "profile_start": 3,
        "trackers": ("tensorboard",),
    }
    changed = with_train(recipe, save_every=3, keep_last=9, **changes)
    assert resolve_started(changed, tmp_path / "run", task) == changed


def test_parallelism_may_change_on_resume(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    resolve_started(recipe, tmp_path / "run", task)
    changed = with_train(recipe, parallel="fsdp", hsdp_replicas=2, activation_checkpointing=True)
    assert resolve_started(changed, tmp_path / "run", task) == changed


def test_parallelism_is_chosen_and_impossible_split_refused(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    found = resolve_started(recipe, tmp_path / "run", task, world=DistContext(cpu, 0, 2))
    assert found.train.parallel == "ddp"  # the ranks of a CPU share its memory
    with pytest.raises(ValueError, match=r"cannot be split over 3 ranks of 8 × 32"):
        resolve_started(recipe, tmp_path / "other", task, world=DistContext(cpu, 0, 3))
    assert not (tmp_path / "other").exists()


def test_fp8_is_refused_where_unsupported(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"FP8.*needs a GPU.*Choose train\.precision"):
        resolve_started(with_train(recipe, precision="fp8"), tmp_path / "run", task)
    assert not (tmp_path / "run").exists()


def test_missing_tracker_is_reported_before_the_run_starts(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnano.utils.platform_support.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'wandb', which is not installed: pip install"):
        resolve_started(with_train(recipe, trackers=("wandb",)), tmp_path / "run", task)
    assert not (tmp_path / "run").exists()


def test_vocabulary_that_does_not_fit_is_refused(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    wrong = replace(recipe, model=replace(recipe.model, vocab_size=512))
    with pytest.raises(ValueError, match=r"vocabulary of 300.*vocab_size is 512"):
        resolve_started(wrong, tmp_path / "run", task)
    assert not (tmp_path / "run").exists()


def test_sources_that_do_not_fit_are_refused(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    sources = {"left": recipe.pretraining_data.sources["left"]}
    wrong = replace(recipe, data=replace(recipe.pretraining_data, sources=sources))
    with pytest.raises(ValueError, match=r"holds the sources left, right.*are left"):
        resolve_started(wrong, tmp_path / "run", task)
