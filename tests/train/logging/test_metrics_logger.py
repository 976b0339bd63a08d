"""Figures are read late, but each lands in its own step's row, and none is lost."""

import torch

from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.train.logging.metrics_logger import AsyncMetricReader

SETTINGS = TrainConfig(steps=5, tokens_per_step=64, schedule=LRSchedule(peak=1.0, warmup=2))
CPU = torch.device("cpu")


def figures(loss: float, norm: float = 1.0, skipped: float = 0, stop: float = 0) -> torch.Tensor:
    return torch.tensor([loss, norm, skipped, stop], dtype=torch.float64)


def test_a_step_is_read_when_the_next_has_been_given_out() -> None:
    readings = AsyncMetricReader(SETTINGS, CPU, max_pending=1)
    read = []
    for step in range(1, 6):
        readings.push(figures(step / 10))
        read.append([row["step"] for row in readings.read_rows(drain=step == 5)])
    assert read == [[], [1], [2], [3], [4, 5]]


def test_a_row_has_the_figures_and_the_learning_rate_of_its_own_step() -> None:
    readings = AsyncMetricReader(SETTINGS, CPU, step=1, elapsed=100.0, max_pending=2)
    for loss in (0.5, 0.4, 0.3, 0.2):
        readings.push(figures(loss, norm=2 * loss))
    rows = list(readings.read_rows(drain=True))
    assert [row["step"] for row in rows] == [2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [0.5, 0.4, 0.3, 0.2]
    assert [row["grad_norm"] for row in rows] == [1.0, 0.8, 0.6, 0.4]
    assert [row["lr"] for row in rows] == [SETTINGS.schedule.lr_at(n, 5) for n in (1, 2, 3, 4)]
    assert [row["tokens"] for row in rows] == [128, 192, 256, 320]
    assert all(row["seconds"] >= 100 for row in rows)
    assert [row.get("final") for row in rows] == [None, None, None, True]


def test_on_a_cpu_nothing_is_late() -> None:
    readings = AsyncMetricReader(SETTINGS, CPU)
    readings.push(figures(1.0))
    assert len(list(readings.read_rows())) == 1


def test_a_loss_that_is_no_number_is_none_and_the_step_says_it_was_skipped() -> None:
    readings = AsyncMetricReader(SETTINGS, CPU)
    readings.push(figures(float("nan"), float("inf"), skipped=1.0))
    (row,) = readings.read_rows()
    assert (row["loss"], row["grad_norm"], row["skipped"]) == (None, None, True)


def test_a_stop_that_any_rank_was_asked_for_is_known_once_it_is_read() -> None:
    readings = AsyncMetricReader(SETTINGS, CPU, max_pending=1)
    readings.push(figures(1.0, stop=1.0))
    assert list(readings.read_rows()) == [] and not readings.stop_requested
    readings.push(figures(1.0))
    assert len(list(readings.read_rows())) == 1 and readings.stop_requested
