"""One broken check does not hide the others, and what was not checked is not ok."""

from collections.abc import Iterator

import pytest

from gnano.doctor import diagnosis
from gnano.doctor.check import Check
from gnano.doctor.diagnosis import format_summary, run_checks


def broken() -> Iterator[Check]:
    yield Check("first", "ok", "1")
    raise RuntimeError("CUDA error: an illegal memory access\nlong explanation")


def fine() -> list[Check]:
    return [Check("last", "ok", "2")]


def test_a_check_that_raises_is_unknown_and_a_test_that_raises_a_problem(monkeypatch):
    monkeypatch.setattr(diagnosis, "host_parts", lambda *_: [("host", broken)])
    monkeypatch.setattr(diagnosis, "gpu_parts", lambda: [("gpu", fine)])
    monkeypatch.setattr(diagnosis, "prepare_trial", lambda *_: ())
    monkeypatch.setattr(diagnosis, "numeric_parts", lambda *_: [("numbers", broken)])
    monkeypatch.setattr(diagnosis, "trial_parts", lambda *_: [("runs", fine)])
    shown: list[str] = []
    checks = list(run_checks("cpu", on_progress=shown.append))
    assert [(check.name, check.status) for check in checks] == [
        ("first", "ok"),
        ("host", "unknown"),
        ("last", "ok"),
        ("first", "ok"),
        ("numbers", "problem"),
        ("last", "ok"),
    ]
    assert checks[1].found == "RuntimeError: CUDA error: an illegal memory access"
    assert len(shown) == 5
    assert format_summary(checks) == "4 ok · 1 unknown · 0 notes · 1 problem"


def test_a_missing_device_is_refused_before_any_check():
    with pytest.raises(ValueError, match="no device 'cuda:99'"):
        next(run_checks("cuda:99"))


def test_a_difference_that_is_not_a_number_is_not_within_its_limit():
    limits = {0.5: "ok", 1.0: "ok", 1.5: "problem", float("nan"): "problem"}
    for difference, status in limits.items():
        assert Check.within(1.0, difference, "a", "by", "Stop.").status == status
