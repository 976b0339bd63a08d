"""Stopped in any phase, a run saves and ends, and resumes as if it had not been stopped."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
import torch
from tests.chaos.faults import COMPILING, Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import find_checkpoint, list_checkpoints, verify_checksums
from gnano.config.recipe import Recipe
from gnano.train.run_dir import current_owner
from gnano.utils.platform_support import compile_unsupported_reason

pytestmark = pytest.mark.slow

PHASES = (
    "in a step",
    "while a batch is loaded",
    "during evaluation",
    "after evaluation",
    "when a save starts",
    "inside a save",
    "before the rename",
    "while an old checkpoint is removed",
)


@pytest.mark.parametrize("moment", PHASES)
def test_a_stop_in_each_phase_ends_with_a_checkpoint_and_its_code(
    chaos_recipe: Recipe, reference_run: Path, tmp_path: Path, moment: str, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    every_step = moment in ("in a step", "while a batch is loaded")
    how, code = ("usr1", 138) if moment == "inside a save" else ("term", 143)
    assert run(chaos_recipe, folder, Fault(moment, 20 if every_step else 2, how)) == [code], output(
        folder
    )
    survived.append(f"stop signal: SIG{how.upper()} {moment}")
    stopped = find_checkpoint(folder)
    verify_checksums(stopped)
    # the last step was saved: none is repeated
    assert history(folder)[-1]["step"] == int(stopped.name.removeprefix("step-"))
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(reference_run))


def test_several_stops_across_epochs(
    chaos_recipe: Recipe, reference_run: Path, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    for steps in (21, 1, 24):
        assert run(chaos_recipe, folder, Fault("after the optimizer", steps, "int")) == [130]
        survived.append("stop signal: SIGINT, again after the resume")
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)


def test_a_last_evaluation_that_was_stopped_runs_after_the_resume(
    chaos_recipe: Recipe, reference_run: Path, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    # 4 evaluations during the run, and the last
    assert run(chaos_recipe, folder, Fault("during evaluation", 5, "term")) == [143]
    survived.append("stop signal: SIGTERM in the last evaluation")
    assert "final" not in history(folder)[-1]
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)
    before = find_checkpoint(folder).stat().st_mtime_ns
    assert run(chaos_recipe, folder) == [0]  # only once
    assert find_checkpoint(folder).stat().st_mtime_ns == before


@pytest.mark.compile
@pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="torch.compile needs a compiler",
)
def test_a_stop_during_the_first_compilation_ends_the_run(
    chaos_recipe: Recipe, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    compiled = with_train(chaos_recipe, compile="yes")
    assert run(compiled, folder, Fault(COMPILING, 1, "term")) == [143], output(folder)
    survived.append("stop signal: SIGTERM while compiling")
    assert "Stopped before the first step" in output(folder)
    assert "Traceback" not in output(folder)
    assert not (folder / "metrics.jsonl").read_text()  # the step was not completed
    assert current_owner(folder) is None


@pytest.mark.ranks
def test_a_signal_to_one_of_two_ranks_stops_both(
    chaos_recipe: Recipe, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    # evaluated every 12 steps
    for moment, call, step in (("in a step", 2, 2), ("during evaluation", 1, 12)):
        codes = run(chaos_recipe, folder, Fault(moment, call, "term"), ranks=2, on=1)
        assert codes == [143, 143], output(folder)
        survived.append(f"stop signal to one of two ranks: {moment}")
        assert history(folder)[-1]["step"] == step


def test_a_clock_set_back_changes_nothing(
    chaos_recipe: Recipe, reference_run: Path, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    assert run(chaos_recipe, folder, Fault("in a step", 30)) == [-9]
    assert run(chaos_recipe, folder, Fault("", how="clock set back")) == [0]
    survived.append("clock set back: ten years")
    assert history(folder) == history(reference_run)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(reference_run))


def test_a_second_ctrl_c_during_a_save_ends_immediately_and_damages_nothing(
    chaos_recipe: Recipe, reference_run: Path, tmp_path: Path, survived: list[str]
) -> None:
    """Run the command itself, for its exit code."""
    folder, file = tmp_path / "run", tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(asdict(chaos_recipe)))
    script = tmp_path / "two_signals.py"
    script.write_text(TWO_SIGNALS)
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    survived.append("stop signal: SIGINT twice, during a save")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "terminate" not in done.stderr, done.stderr
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000008"]
    verify_checksums(find_checkpoint(folder))
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)


TWO_SIGNALS = """
import os, signal, sys, time
from gnano.cli import main
from gnano.checkpoint import format, async_writer

write, calls = format.write_checksums, []

def slow(folder):
    calls.append(folder)
    if len(calls) == 2:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        time.sleep(30)  # like a slow disk
    write(folder)

format.write_checksums = slow
main(["pretrain", sys.argv[1], "--out", sys.argv[2]])
"""
