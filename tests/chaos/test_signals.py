"""Asked to stop in any phase, a run ends in good order, and goes on as if it had not."""

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

from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import find_checkpoint, list_checkpoints
from gnano.config.recipe import Recipe
from gnano.model.devices import compile_unsupported_reason
from gnano.train.run_lock import current_owner

PHASES = (
    "in a step",
    "while data is laid out",
    "during evaluation",
    "after evaluation",
    "when a save begins",
    "inside a save",
    "before the rename",
    "while an old one goes",
)


@pytest.mark.parametrize("moment", PHASES)
def test_a_stop_in_each_phase_ends_with_a_checkpoint_and_its_code(
    chaotic: Recipe, calm: Path, tmp_path: Path, moment: str, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    often = moment in ("in a step", "while data is laid out")
    how, code = ("usr1", 138) if moment == "inside a save" else ("term", 143)
    assert run(chaotic, folder, Fault(moment, 20 if often else 2, how)) == [code], output(folder)
    fault.append(f"stop signal: SIG{how.upper()} {moment}")
    stopped = find_checkpoint(folder)
    verify_checksums(stopped)
    # the stop itself was saved: no step is taken twice
    assert history(folder)[-1]["step"] == int(stopped.name.removeprefix("step-"))
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm))


def test_two_stops_in_a_row_across_the_ends_of_epochs(
    chaotic: Recipe, calm: Path, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    for steps in (21, 1, 24):
        assert run(chaotic, folder, Fault("after the optimizer", steps, "int")) == [130]
        fault.append("stop signal: SIGINT, again after the resume")
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)


def test_a_stop_in_the_last_measurement_is_made_up_for(
    chaotic: Recipe, calm: Path, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    # 4 measurements on the way, and the last
    assert run(chaotic, folder, Fault("during evaluation", 5, "term")) == [143]
    fault.append("stop signal: SIGTERM in the last measurement")
    assert "final" not in history(folder)[-1]
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)
    before = find_checkpoint(folder).stat().st_mtime_ns
    assert run(chaotic, folder) == [0]  # and once only
    assert find_checkpoint(folder).stat().st_mtime_ns == before


@pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="torch.compile needs a compiler",
)
def test_a_stop_while_the_first_step_is_being_compiled_ends_it_there(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    compiled = with_train(chaotic, compile="yes")
    assert run(compiled, folder, Fault(COMPILING, 1, "term")) == [143], output(folder)
    fault.append("stop signal: SIGTERM while compiling")
    assert "Stopped before the first step" in output(folder)
    assert "Traceback" not in output(folder)
    assert not (folder / "metrics.jsonl").read_text()  # the step was not taken to its end first
    assert current_owner(folder) is None


def test_a_signal_to_one_of_two_ranks_stops_both(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    # measured every 12 steps
    for moment, time, step in (("in a step", 2, 2), ("during evaluation", 1, 12)):
        codes = run(chaotic, folder, Fault(moment, time, "term"), ranks=2, on=1)
        assert codes == [143, 143], output(folder)
        fault.append(f"stop signal to one of two ranks: {moment}")
        assert history(folder)[-1]["step"] == step


def test_the_machine_s_clock_set_back_changes_nothing(
    chaotic: Recipe, calm: Path, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    assert run(chaotic, folder, Fault("in a step", 30)) == [-9]
    assert run(chaotic, folder, Fault("", how="past")) == [0]
    fault.append("clock set back: ten years")
    assert history(folder) == history(calm)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm))


def test_a_second_ctrl_c_in_the_middle_of_a_save_ends_at_once_and_leaves_all_whole(
    chaotic: Recipe, calm: Path, tmp_path: Path, fault: list[str]
) -> None:
    """Through the command itself, whose exit code it is."""
    folder, file = tmp_path / "run", tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(asdict(chaotic)))
    script = tmp_path / "twice.py"
    script.write_text(TWICE)
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    fault.append("stop signal: SIGINT twice, in the middle of a save")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "terminate" not in done.stderr, done.stderr
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000008"]
    verify_checksums(find_checkpoint(folder))
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)


TWICE = """
import os, signal, sys, time
from gnano.cli import main
from gnano.checkpoint import format, async_writer

write, calls = format.write_hashes, []

def slow(folder):
    calls.append(folder)
    if len(calls) == 2:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        time.sleep(30)  # as a slow disk would be
    write(folder)

format.write_hashes = slow
main(["pretrain", sys.argv[1], "--out", sys.argv[2]])
"""
