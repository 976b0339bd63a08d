"""The progress line: its parts, its width, the speed and the time left."""

import io
import os
import re
import shutil

import pytest

from gnano.train.logging.progress_bar import ProgressBar
from gnano.utils.terminal import StatusLine

METRICS: dict[str, object] = {
    "step": 1,
    "steps": 50_000,
    "tokens": 512,
    "loss": 3.21449,
    "grad_norm": 0.4189,
    "lr": 2.96e-4,
    "tokens_per_s": 94_210.0,
    "seconds": 1.0,
    "skipped": False,
    "mfu": 0.601,
    "memory_gb": 58.21,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test advances: `clock[0] += seconds`."""
    now = [100.0]
    monkeypatch.setattr("gnano.train.logging.progress_bar.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def width(monkeypatch):
    def set_width(columns):
        size = os.terminal_size((columns, 24))
        monkeypatch.setattr(shutil, "get_terminal_size", lambda: size)

    set_width(200)
    return set_width


def last_line(stream):
    """Return the line that the terminal shows now."""
    return re.sub(r"\x1b\[\w+", "", stream.getvalue()).split("\r")[-1].split("\n")[-1]


def show(*rows, steps=50_000):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    for row in rows:
        progress.update(METRICS | {"steps": steps} | row)
    return last_line(stream)


def test_the_line_has_all_parts(clock, width):
    heldout = {"bits_per_byte": 1.0229, "sources": {}}
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    progress.update(METRICS | {"heldout": heldout})
    clock[0] += 2
    progress.update(METRICS | {"step": 2})
    assert last_line(stream) == (
        "step 2/50,000 · loss 3.214 · 27:46:36 left · 94,210 tokens/s · 60.1% MFU"
        " · held-out 1.023 bits/byte · norm 0.42 · lr 2.96e-04 · 58.2 GB"
    )


TASKS = {
    "hellaswag": {"items": 500, "acc": 0.262, "acc_norm": 0.2841, "error": 0.0201},
    "lambada": {"items": 500, "acc": 0.1, "error": 0.0134},
}


def test_the_last_accuracy_of_each_task_stays_on_the_line(clock, width):
    heldout = {"bits_per_byte": 1.0229, "sources": {}}
    line = show({}, {"step": 2, "tasks": TASKS, "heldout": heldout}, {"step": 3})
    assert " · held-out 1.023 bits/byte · hellaswag 0.284 · lambada 0.100 · norm 0.42" in line


def test_many_tasks_are_shown_from_the_first(clock, width):
    many = {f"task-{n}": {"acc": n / 100} for n in range(30)}
    assert "task-0 0.000 · task-1 0.010" in show({}, {"step": 2, "tasks": many})


@pytest.mark.parametrize(
    "tasks",
    [None, [], "0.3", {}, {"mine": None}, {"mine": {"f1": 0.3}}, {"mine": {"acc": "0.3"}}],
)
def test_tasks_without_an_accuracy_are_ignored(clock, width, tasks):
    assert show({"tasks": tasks}) == show({})


def test_a_log_file_gets_a_complete_line_for_every_accuracy():
    stream = io.StringIO()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1, 101):
        progress.update(METRICS | {"step": step} | ({"tasks": TASKS} if step % 50 == 0 else {}))
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["step 1", "step 50", "step 100"]
    assert "hellaswag 0.284 · lambada 0.100" in lines[1]


def test_a_narrow_terminal_shows_the_first_parts_and_no_truncated_number(clock, width):
    width(200)
    all_parts = show({}, {"step": 2}).split(" · ")
    for columns in range(15, 150):
        width(columns)
        line = show({}, {"step": 2})
        parts = line.split(" · ")
        assert len(line) < columns
        assert parts == all_parts[: len(parts)]
        assert parts == all_parts or len(" · ".join(all_parts[: len(parts) + 1])) >= columns


def test_the_speed_is_averaged_over_the_last_steps():
    slow_start = {"tokens_per_s": 100.0}
    rows = [{"step": n, "tokens_per_s": 90_000.0} for n in range(2, 60)]
    assert " 90,000 tokens/s" in show(slow_start, *rows)
    after_one = show(slow_start, *rows, {"step": 60, "tokens_per_s": 45_000.0})
    assert " 85,714 tokens/s" in after_one  # the time of 21 steps instead of 20
    halved = [{"step": n, "tokens_per_s": 45_000.0} for n in range(60, 160)]
    assert re.search(r" 45,\d\d\d tokens/s", show(slow_start, *rows, *halved))


def test_mfu_is_unknown_on_an_unknown_gpu_and_absent_on_a_cpu():
    assert "MFU unknown" in show({"mfu": None})
    stream = Terminal()
    ProgressBar(StatusLine(stream)).update({k: v for k, v in METRICS.items() if k != "mfu"})
    assert "MFU" not in last_line(stream)


def test_mfu_matches_the_speed_shown():
    line = show({}, {"step": 2}, {"step": 3, "tokens_per_s": 47_105.0, "mfu": 0.3005})
    (speed,) = re.findall(r"([\d,]+) tokens/s", line)
    (share,) = re.findall(r"([\d.]+)% MFU", line)
    assert abs(float(share) / float(speed.replace(",", "")) - 60.1 / 94_210) < 1e-6


def test_skipped_steps_are_counted_and_the_last_finite_loss_stays():
    line = show({}, {"step": 2, "loss": None, "grad_norm": None, "skipped": True})
    assert "loss 3.214 · 1 step skipped" in line and "norm" not in line
    many = [{"step": n, "loss": None, "grad_norm": None, "skipped": True} for n in range(2, 5)]
    assert "3 steps skipped" in show({}, *many)
    assert "skipped" not in show({})


def test_a_skipped_first_step_shows_a_line():
    assert "loss …" in show({"loss": None, "grad_norm": None, "skipped": True})


def test_the_time_left_of_a_resumed_run_uses_its_own_steps(clock, width):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1_001, 1_012):
        progress.update(METRICS | {"step": step, "steps": 1_100})
        clock[0] += 6
    clock[0] -= 6
    progress.update(METRICS | {"step": 1_011, "steps": 1_100})
    assert "left" in last_line(stream)
    # 11 updates in 60 s after the first: 5.45 s each, 89 steps left
    assert "8:05 left" in last_line(stream)


def test_a_log_file_gets_a_complete_line_for_every_held_out_loss(monkeypatch):
    stream = io.StringIO()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1, 1_001):
        row: dict[str, object] = METRICS | {"step": step}
        if step % 250 == 0:
            row = row | {"heldout": {"bits_per_byte": 1.5, "sources": {}}}
        progress.update(row)
    lines = stream.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"step {n:,}/50,000" for n in (1, 250, 500, 750, 1_000)
    ]
    assert all(line.endswith("58.2 GB") for line in lines)


def test_a_message_stays_above_the_line(width):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    progress.update(METRICS)
    progress.show_message("wandb stopped, training continues: no login")
    progress.update(METRICS | {"step": 2})
    plain = re.sub(r"\x1b\[\w+", "", stream.getvalue()).replace("\r", "")
    assert [line.split(" · ")[0] for line in plain.split("\n")] == [
        "step 1/50,000",
        "wandb stopped, training continues: no login",
        "step 2/50,000",
    ]
