"""Metrics are read one step later, in the row of their own step, and shown on the progress line."""

import io
import os
import re
import shutil

import pytest
import torch

from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.train.distributed.context import DistContext
from gnano.train.logging.metrics_logger import MetricsLogger, ProgressBar
from gnano.train.trainer import ignore_message
from gnano.utils.terminal import StatusLine

RECIPE = Recipe(train=TrainConfig(steps=5, tokens_per_step=64))
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def make_logger(run, device, *progress):
    return MetricsLogger(RECIPE, run, DistContext(device), print, ignore_message, *progress)


def step_metrics(
    loss: float, norm: float = 1.0, skipped: float = 0, stop: float = 0
) -> torch.Tensor:
    return torch.tensor([loss, norm, skipped, stop], dtype=torch.float64)


def test_a_step_is_read_when_the_next_has_been_started(tmp_path):
    logger = make_logger(tmp_path, CUDA)
    steps_read = []
    for step in range(1, 6):
        logger.push(step_metrics(step / 10), lr=1.0)
        steps_read.append([row["step"] for row in logger.read_rows(drain=step == 5)])
    assert steps_read == [[], [1], [2], [3], [4, 5]]


def test_a_row_has_the_metrics_and_learning_rate_of_its_step(tmp_path):
    logger = make_logger(tmp_path, CUDA, 1, {"seconds": 100.0})
    for loss in (0.5, 0.4, 0.3, 0.2):
        logger.push(step_metrics(loss, norm=2 * loss), lr=3 * loss)
    rows = list(logger.read_rows(drain=True))
    assert [row["step"] for row in rows] == [2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [0.5, 0.4, 0.3, 0.2]
    assert [row["grad_norm"] for row in rows] == [1.0, 0.8, 0.6, 0.4]
    assert [row["lr"] for row in rows] == [3 * loss for loss in (0.5, 0.4, 0.3, 0.2)]
    assert [row["tokens"] for row in rows] == [128, 192, 256, 320]
    assert all(row["seconds"] >= 100 for row in rows)
    assert [row.get("final") for row in rows] == [None, None, None, True]


def test_on_a_cpu_a_step_is_read_immediately(tmp_path):
    logger = make_logger(tmp_path, CPU)
    logger.push(step_metrics(1.0), lr=1.0)
    assert len(list(logger.read_rows())) == 1


def test_a_loss_that_is_not_finite_becomes_none_in_a_skipped_step(tmp_path):
    logger = make_logger(tmp_path, CPU)
    logger.push(step_metrics(float("nan"), float("inf"), skipped=1.0), lr=1.0)
    (row,) = logger.read_rows()
    assert (row["loss"], row["grad_norm"], row["skipped"]) == (None, None, True)


def test_a_stop_request_of_any_rank_is_known_once_the_step_is_read(tmp_path):
    logger = make_logger(tmp_path, CUDA)
    logger.push(step_metrics(1.0, stop=1.0), lr=1.0)
    assert list(logger.read_rows()) == [] and not logger.stop_requested
    logger.push(step_metrics(1.0), lr=1.0)
    assert len(list(logger.read_rows())) == 1 and logger.stop_requested


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
    monkeypatch.setattr("gnano.train.logging.metrics_logger.time.monotonic", lambda: now[0])
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


@pytest.mark.parametrize("tasks", [{}, {"mine": {"f1": 0.3}}])
def test_tasks_without_an_accuracy_are_ignored(clock, width, tasks):
    assert show({"tasks": tasks}) == show({})


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ({"tasks": TASKS}, "hellaswag 0.284 · lambada 0.100"),
        ({"heldout": {"bits_per_byte": 1.5, "sources": {}}}, "held-out 1.500 bits/byte"),
    ],
)
def test_a_log_file_gets_a_complete_line_for_every_evaluation(results, text):
    stream = io.StringIO()
    progress = ProgressBar(StatusLine(stream))
    for step in range(1, 1_001):
        progress.update(METRICS | {"step": step} | (results if step % 250 == 0 else {}))
    lines = stream.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"step {n:,}/50,000" for n in (1, 250, 500, 750, 1_000)
    ]
    assert all(line.endswith("58.2 GB") for line in lines)
    assert all(text in line for line in lines[1:])


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
