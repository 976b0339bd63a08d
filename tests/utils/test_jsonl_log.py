"""The log survives a kill in the middle of a line."""

import json
from pathlib import Path

from gnano.utils.jsonl_log import JsonLinesWriter, read_metrics


def test_a_torn_line_is_ended_before_the_next(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    log = JsonLinesWriter(tmp_path / "metrics.jsonl")
    log.write(step=2, loss=1.5)
    log.close()
    lines = file.read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1 and json.loads(lines[-1])["loss"] == 1.5
    assert [row["loss"] for row in read_metrics(file)] == [2.0, 1.5]


def test_lines_wait_until_the_log_can_be_opened(tmp_path: Path) -> None:
    log = JsonLinesWriter(tmp_path / "gone" / "metrics.jsonl")
    assert not log.write(step=1, loss=2.0)
    assert "metrics.jsonl" in str(log.last_error)
    log.path.parent.mkdir()
    assert log.write(step=2, loss=1.0)
    assert log.close() == 0
    assert [row["loss"] for row in read_metrics(log.path)] == [2.0, 1.0]


def test_written_lines_are_never_rewritten(tmp_path: Path) -> None:
    for step in range(3):
        log = JsonLinesWriter(tmp_path / "metrics.jsonl")
        before = (tmp_path / "metrics.jsonl").read_bytes()
        log.write(step=step, loss=0.0)
        log.close()
        assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3
