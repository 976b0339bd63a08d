import io
import os
import re
import shutil

import pytest

from gnano.train.logging.progress_bar import ProgressBar
from gnano.utils.progress import StatusLine

FIGURES: dict[str, object] = {
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
    """A clock that a test moves: `clock[0] += seconds`."""
    now = [100.0]
    monkeypatch.setattr("gnano.train.logging.progress_bar.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def width(monkeypatch):
    def set_to(columns):
        size = os.terminal_size((columns, 24))
        monkeypatch.setattr(shutil, "get_terminal_size", lambda: size)

    set_to(200)
    return set_to


def shown(stream):
    """The line that stands on the terminal now."""
    return re.sub(r"\x1b\[\w+", "", stream.getvalue()).split("\r")[-1].split("\n")[-1]


def watch(*rows, steps=50_000):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    for row in rows:
        progress.update(FIGURES | {"steps": steps} | row)
    return shown(stream)


def test_the_line_has_all_that_is_watched(clock, width):
    heldout = {"bits_per_byte": 1.0229, "sources": {}}
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    progress.update(FIGURES | {"heldout": heldout})
    clock[0] += 2
    progress.update(FIGURES | {"step": 2})
    assert shown(stream) == (
        "step 2/50,000 · loss 3.214 · 27:46:36 left · 94,210 tokens/s · 60.1% MFU"
        " · held-out 1.023 bits/byte · norm 0.42 · lr 2.96e-04 · 58.2 GB"
    )


TASKS = {
    "hellaswag": {"items": 500, "acc": 0.262, "acc_norm": 0.2841, "error": 0.0201},
    "lambada": {"items": 500, "acc": 0.1, "error": 0.0134},
}


def test_the_last_accuracy_on_each_task_stays_on_the_line(clock, width):
    heldout = {"bits_per_byte": 1.0229, "sources": {}}
    line = watch({}, {"step": 2, "tasks": TASKS, "heldout": heldout}, {"step": 3})
    assert " · held-out 1.023 bits/byte · hellaswag 0.284 · lambada 0.100 · norm 0.42" in line


def test_a_narrow_terminal_has_the_first_of_many_tasks(clock, width):
    many = {f"task-{n}": {"acc": n / 100} for n in range(30)}
    assert "task-0 0.000 · task-1 0.010" in watch({}, {"step": 2, "tasks": many})


@pytest.mark.parametrize(
    "tasks",
    [None, [], "0.3", {}, {"mine": None}, {"mine": {"f1": 0.3}}, {"mine": {"acc": "0.3"}}],
)
def test_tasks_without_an_accuracy_leave_the_line_as_it_was(clock, width, tasks):
    assert watch({"tasks": tasks}) == watch({})


def test_a_log_gets_every_accuracy_on_a_whole_line():
    stream = io.StringIO()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1, 101):
        progress.update(FIGURES | {"step": step} | ({"tasks": TASKS} if step % 50 == 0 else {}))
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["step 1", "step 50", "step 100"]
    assert "hellaswag 0.284 · lambada 0.100" in lines[1]


def test_a_narrow_terminal_shows_the_important_parts_and_no_number_cut_short(clock, width):
    width(200)
    whole = watch({}, {"step": 2}).split(" · ")
    for columns in range(15, 150):
        width(columns)
        line = watch({}, {"step": 2})
        parts = line.split(" · ")
        assert len(line) < columns
        assert parts == whole[: len(parts)]
        assert parts == whole or len(" · ".join(whole[: len(parts) + 1])) >= columns


def test_the_speed_follows_the_last_steps_but_not_a_single_slow_one():
    slow_start = {"tokens_per_s": 100.0}
    rows = [{"step": n, "tokens_per_s": 90_000.0} for n in range(2, 60)]
    assert " 90,000 tokens/s" in watch(slow_start, *rows)
    after_one = watch(slow_start, *rows, {"step": 60, "tokens_per_s": 45_000.0})
    assert " 85,714 tokens/s" in after_one  # of 20 steps' time 21 now
    halved = [{"step": n, "tokens_per_s": 45_000.0} for n in range(60, 160)]
    assert re.search(r" 45,\d\d\d tokens/s", watch(slow_start, *rows, *halved))


def test_mfu_is_unknown_on_an_unknown_gpu_and_not_spoken_of_on_a_cpu():
    assert "MFU unknown" in watch({"mfu": None})
    stream = Terminal()
    ProgressBar(StatusLine(stream)).update({k: v for k, v in FIGURES.items() if k != "mfu"})
    assert "MFU" not in shown(stream)


def test_mfu_belongs_to_the_speed_beside_it():
    line = watch({}, {"step": 2}, {"step": 3, "tokens_per_s": 47_105.0, "mfu": 0.3005})
    (speed,) = re.findall(r"([\d,]+) tokens/s", line)
    (share,) = re.findall(r"([\d.]+)% MFU", line)
    assert abs(float(share) / float(speed.replace(",", "")) - 60.1 / 94_210) < 1e-6


def test_skipped_steps_are_counted_and_the_loss_stays_the_last_real_one():
    line = watch({}, {"step": 2, "loss": None, "grad_norm": None, "skipped": True})
    assert "loss 3.214 · 1 step skipped" in line and "norm" not in line
    many = [{"step": n, "loss": None, "grad_norm": None, "skipped": True} for n in range(2, 5)]
    assert "3 steps skipped" in watch({}, *many)
    assert "skipped" not in watch({})


def test_a_run_whose_first_step_is_skipped_has_a_line():
    assert "loss …" in watch({"loss": None, "grad_norm": None, "skipped": True})


def test_the_time_left_counts_from_where_this_part_of_the_run_began(clock, width):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1_001, 1_012):
        progress.update(FIGURES | {"step": step, "steps": 1_100})
        clock[0] += 6
    clock[0] -= 6
    progress.update(FIGURES | {"step": 1_011, "steps": 1_100})
    assert "left" in shown(stream)
    # 11 figures in 60 s after the first: 5.45 s each, 89 steps to go
    assert "8:05 left" in shown(stream)


def test_a_log_gets_every_held_out_loss_on_a_whole_line(monkeypatch):
    stream = io.StringIO()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1, 1_001):
        row: dict[str, object] = FIGURES | {"step": step}
        if step % 250 == 0:
            row = row | {"heldout": {"bits_per_byte": 1.5, "sources": {}}}
        progress.update(row)
    lines = stream.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"step {n:,}/50,000" for n in (1, 250, 500, 750, 1_000)
    ]
    assert all(line.endswith("58.2 GB") for line in lines)


def test_what_is_said_stays_above_the_line(width):
    stream = Terminal()
    progress = ProgressBar(StatusLine(stream))
    progress.update(FIGURES)
    progress.show_message("wandb stopped, the run goes on: no login")
    progress.update(FIGURES | {"step": 2})
    plain = re.sub(r"\x1b\[\w+", "", stream.getvalue()).replace("\r", "")
    assert [line.split(" · ")[0] for line in plain.split("\n")] == [
        "step 1/50,000",
        "wandb stopped, the run goes on: no login",
        "step 2/50,000",
    ]
