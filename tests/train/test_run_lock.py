"""Only one process trains a run; a second one is refused and names the first."""

import signal
from pathlib import Path

import pytest
import torch
from tests.processes import start, wait_for_step
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.run_dir import current_owner, run_lock


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
