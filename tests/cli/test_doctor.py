"""`gnano doctor`: exit codes, lines and JSON; the checks themselves are tested in tests/doctor."""

import json

import pytest
from tests.cli.runner import error_sentence, run_gnano

from gnano.doctor import diagnosis
from gnano.doctor.check import Check

CHECKS = [
    Check("disk", "ok", "500 MB/s"),
    Check("clocks", "unknown", "not read"),
    Check("CPU cores", "note", "2, PyTorch uses 8 threads", "Set OMP_NUM_THREADS=2."),
]
PROBLEM = Check("layer bf16", "problem", "difference nan", "Do not train here.")


@pytest.mark.parametrize(("checks", "expected"), [(CHECKS, 0), ([*CHECKS, PROBLEM], 1)])
def test_only_a_problem_sets_the_exit_code(checks, expected, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis, "run_checks", lambda *_: iter(checks))
    code, out, _ = run_gnano(capsys, "doctor", "--out", tmp_path / "report.json")
    assert code == expected
    lines = out.splitlines()
    assert lines[0].split() == ["ok", "disk", "500", "MB/s"]
    assert lines[2].endswith("threads. Set OMP_NUM_THREADS=2.")
    assert lines[-1].startswith("1 ok · 1 unknown · 1 note · ")
    found = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert [row["status"] for row in found] == [check.status for check in checks]
    assert found[2]["advice"] == "Set OMP_NUM_THREADS=2."


def test_a_missing_device_is_named_before_anything_runs(capsys):
    assert "There is no device 'cuda:99'" in error_sentence(capsys, "doctor", "--device", "cuda:99")
