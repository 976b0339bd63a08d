"""A run's folder: damage of its recipe.toml is reported; only one process trains in it."""

import re
import signal
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch
from tests.processes import start, wait_for_step
from tests.small_models import resolve_started, with_train

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.run_dir import current_owner, run_lock
from gnano.train.training_task import PretrainingTask


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (b"(?s).*", b""),
        (b"steps = ", b"steps # "),
        (b"grad_clip =", b"grad_clap ="),
        (b"\\[run\\]", b"[ran]"),
        (b"data_fingerprint", b"data_fingerprinu"),
        (b'kind = "cosine"', b'kind = "cosinf"'),
        (b"fp32", b"fp\xff2"),
    ],
)
def test_damaged_recipe_is_reported_with_advice(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path, pattern: bytes, replacement: bytes
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    file = run / "recipe.toml"
    damaged = re.sub(pattern, lambda _: replacement, file.read_bytes(), count=1)
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    with pytest.raises(ValueError) as refused:
        resolve_started(recipe, run, task)
    message = str(refused.value)
    assert message.startswith(f"{file} is damaged") and "delete it" in message
    assert file.read_bytes() == damaged
    assert "\n" not in message and message.endswith(".")
    file.unlink()
    assert resolve_started(recipe, run, task) == recipe


def test_flipped_bits_never_give_another_recipe(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    content = (run / "recipe.toml").read_bytes()
    for place in range(0, len(content), 13):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (run / "recipe.toml").write_bytes(flipped)
        try:  # it may have changed a fact, or an unchecked value
            assert resolve_started(recipe, run, task) == recipe
        except ValueError as error:
            assert str(run) in str(error)


def test_run_of_an_older_version_resumes(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    """Keys that are missing in its recipe.toml have their defaults."""
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    old = tomllib.loads((run / "recipe.toml").read_text())
    del old["train"]["stability"], old["train"]["keep_best"]
    del old["data"]["document_attention_mask"]
    (run / "recipe.toml").write_text(tomli_w.dumps(old))
    assert resolve_started(recipe, run, task) == recipe


@pytest.mark.slow
def test_second_process_on_a_run_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    long = with_train(recipe, steps=100_000)
    first = start(long, run)
    try:
        wait_for_step(run, 1, first)
        second = start(long, run)
        output = second.communicate(timeout=60)[0].decode()
        assert second.returncode == 2
        assert f"is being trained by process {first.pid} on" in output, output
        assert "Traceback" not in output
        found = current_owner(run)
        assert found is not None and found["pid"] == first.pid
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert current_owner(run) is None  # the kernel has released the lock
    with run_lock(run, DistContext(torch.device("cpu"))):
        pass


def test_folder_without_a_run_has_no_owner(tmp_path: Path) -> None:
    assert current_owner(tmp_path / "nowhere") is None
    (tmp_path / "run.lock").write_text("{")
    assert current_owner(tmp_path) is None
