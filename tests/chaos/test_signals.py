"""Asked to stop in any phase, a run ends in good order, and goes on as if it had not."""

from pathlib import Path

import pytest
import torch
from tests.chaos.faults import COMPILING, Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint
from tests.small import with_train

from gnano.model.compiling import compile_lacking
from gnano.train import Recipe, find_checkpoint, holder, verify

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
    verify(stopped)
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
    # 4 measurements on the way, of two sources each; the first source of the last
    assert run(chaotic, folder, Fault("during evaluation", 9, "term")) == [143]
    fault.append("stop signal: SIGTERM in the last measurement")
    assert "final" not in history(folder)[-1]
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)
    before = find_checkpoint(folder).stat().st_mtime_ns
    assert run(chaotic, folder) == [0]  # and once only
    assert find_checkpoint(folder).stat().st_mtime_ns == before


@pytest.mark.skipif(
    compile_lacking(torch.device("cpu")) is not None, reason="torch.compile needs a compiler"
)
def test_a_stop_while_the_first_step_is_being_compiled_ends_it_there(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    compiled = with_train(chaotic, compile="yes")
    assert run(compiled, folder, Fault(COMPILING, 1, "term")) == [143], output(folder)
    fault.append("stop signal: SIGTERM while compiling")
    assert "Stopped within the first step" in output(folder)
    assert "Traceback" not in output(folder)
    assert not (folder / "metrics.jsonl").read_text()  # the step was not taken to its end first
    assert holder(folder) is None


def test_a_signal_to_one_of_two_ranks_stops_both(
    chaotic: Recipe, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    for number, moment in enumerate(("in a step", "during evaluation")):
        codes = run(chaotic, folder, Fault(moment, 2, "term"), ranks=2, on=1)
        assert codes == [143, 143], output(folder)
        fault.append(f"stop signal to one of two ranks: {moment}")
        assert history(folder)[-1]["step"] == (2, 12)[number]


def test_the_machine_s_clock_set_back_changes_nothing(
    chaotic: Recipe, calm: Path, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    assert run(chaotic, folder, Fault("in a step", 30)) == [-9]
    assert run(chaotic, folder, Fault("", how="past")) == [0]
    fault.append("clock set back: ten years")
    assert history(folder) == history(calm)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm))
