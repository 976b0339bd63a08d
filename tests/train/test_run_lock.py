"""Two processes on one run would undo each other's work: the second is told of the first."""

import signal
from pathlib import Path

from tests.processes import start, wait_for_step
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.run_lock import current_owner


def test_a_second_process_on_a_run_is_refused_with_the_name_of_the_first(
    recipe: Recipe, tmp_path: Path
) -> None:
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
        assert first.poll() is None  # and goes on
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == -signal.SIGKILL
    # nothing of a killed one stands in the way
    assert current_owner(run) is None
    third = start(long, run)
    try:
        wait_for_step(run, 2, third)
    finally:
        third.kill()
        third.communicate()


def test_nobody_trains_a_folder_that_is_none(tmp_path: Path) -> None:
    assert current_owner(tmp_path / "nowhere") is None
    (tmp_path / "run.lock").write_text("{")
    assert current_owner(tmp_path) is None
