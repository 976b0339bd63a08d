import json

import pytest

from gnano.utils.jsonl_log import read_metrics


def line(step, **more):
    return json.dumps({"step": step, "loss": 5.0, **more}) + "\n"


@pytest.fixture
def log(tmp_path):
    def write(text):
        path = tmp_path / "metrics.jsonl"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_after_a_resume_the_later_line_counts(log):
    path = log(line(1) + line(2) + line(3) + line(2, loss=4.5) + line(3, loss=4.0) + line(4))
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows] == [5.0, 4.5, 4.0, 5.0]


@pytest.mark.parametrize("length", range(1, len(line(2)) - 1))
def test_a_line_torn_anywhere_is_skipped(log, length):
    torn = line(2)[:length]
    assert [row["step"] for row in read_metrics(log(line(1) + torn))] == [1]
    assert [row["step"] for row in read_metrics(log(line(1) + torn + "\n" + line(3)))] == [1, 3]


def test_a_line_appended_to_a_torn_one_is_read(log):
    rows = read_metrics(log(line(1) + line(2)[:14] + line(2, loss=4.5) + line(3)))
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 5.0), (2, 4.5), (3, 5.0)]


def test_a_file_cut_inside_a_character_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1).encode() + '{"step": 2, "note": "é'.encode()[:-1])
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_a_final_row_keeps_the_loss_of_its_step(log):
    final = json.dumps({"step": 2, "final": True, "heldout": {"bits_per_byte": 1.5}}) + "\n"
    last = read_metrics(log(line(1) + line(2) + final))[-1]
    assert (last["loss"], last["final"], last["heldout"]["bits_per_byte"]) == (5.0, True, 1.5)


def test_a_missing_log_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl inside a run's folder"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path)  # the folder itself


@pytest.mark.parametrize("text", ["", "\n", line(1)[:9], "[1]\n"])
def test_a_log_without_a_step_is_an_error(log, text):
    with pytest.raises(ValueError, match="no finished step yet"):
        read_metrics(log(text))


def test_a_long_run_is_read_completely(log):
    path = log("".join(line(s, tokens=s * 4096, grad_norm=0.9, lr=3e-4) for s in range(50_000)))
    assert len(read_metrics(path)) == 50_000
