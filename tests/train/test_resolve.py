"""Resolving a recipe: `auto` is chosen once, and what does not fit is refused first."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.small_models import resolve_started, with_train

from gnano.config.recipe import Recipe
from gnano.train import resolve
from gnano.train.distributed.context import DistContext
from gnano.train.trainer import train
from gnano.train.training_task import PretrainingTask
from gnano.utils import platform_support


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
    sharding = {"parallel": "fsdp", "hsdp_replicas": 2, "reshard_after_forward": "no"}
    changed = with_train(recipe, activation_checkpointing=True, **sharding)
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


@pytest.mark.parametrize(("gpus", "missing"), [(2, (0, 1)), (1, None)])
def test_gpus_without_direct_access_do_not_share_the_weights_of_a_model_unasked(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, gpus: int, missing: tuple[int, int] | None
) -> None:
    """GPUs on PCIe, or one on each of two machines."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(resolve, "find_missing_peer_access", lambda: missing)
    world = DistContext(torch.device("cuda", 0), 0, 2)
    for memory in (2 * 10**9, 10**9):
        device = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, found=device: found)
        if memory > 10**9:
            assert resolve._choose_parallelism(recipe, world).parallel == "ddp"
            continue
        message = r'needs 2 GB, and they have 1\..*choose train\.parallel = "fsdp" or "ddp"'
        with pytest.raises(ValueError, match=message):
            resolve._choose_parallelism(recipe, world)
        chosen = resolve._choose_parallelism(with_train(recipe, parallel="fsdp"), world)
        assert chosen.parallel == "fsdp"


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


def test_a_slow_choice_that_can_be_mended_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver").touch()
    monkeypatch.setattr(platform_support, "NVIDIA_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("gnano.utils.platform_support.shutil.which", lambda name: None)
    monkeypatch.setattr(resolve, "MIN_COMPILE_FLOPS", 0)

    def messages_of(**changes: object) -> list[str]:
        messages: list[str] = []
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        train(
            with_train(recipe, steps=1, **changes),
            run,
            notify=lambda t, _=False: messages.append(t),
        )
        return [text for text in messages if "CPU" in text or "compiled" in text]

    on_cpu, not_compiled = messages_of(device="auto", compile="auto")
    assert "NVIDIA GPU" in on_cpu and "CUDA 13.0" in on_cpu and "driver" in on_cpu
    assert "not compiled" in not_compiled and "compiler" in not_compiled
    assert messages_of(device="cpu", compile="no") == []
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in messages_of(device="auto", compile="no")[0]
