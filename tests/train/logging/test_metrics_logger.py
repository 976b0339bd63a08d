"""Metrics are read one step later; each is in the row of its own step, and none is lost."""

import torch

from gnano.config.train_config import TrainConfig
from gnano.train.logging.metrics_logger import AsyncMetricReader

SETTINGS = TrainConfig(steps=5, tokens_per_step=64)
CPU = torch.device("cpu")


def step_metrics(
    loss: float, norm: float = 1.0, skipped: float = 0, stop: float = 0
) -> torch.Tensor:
    return torch.tensor([loss, norm, skipped, stop], dtype=torch.float64)


def test_a_step_is_read_when_the_next_has_been_started() -> None:
    reader = AsyncMetricReader(SETTINGS, CPU, max_pending=1)
    steps_read = []
    for step in range(1, 6):
        reader.push(step_metrics(step / 10), lr=1.0)
        steps_read.append([row["step"] for row in reader.read_rows(drain=step == 5)])
    assert steps_read == [[], [1], [2], [3], [4, 5]]


def test_a_row_has_the_metrics_and_learning_rate_of_its_step() -> None:
    reader = AsyncMetricReader(SETTINGS, CPU, step=1, elapsed=100.0, max_pending=2)
    for loss in (0.5, 0.4, 0.3, 0.2):
        reader.push(step_metrics(loss, norm=2 * loss), lr=3 * loss)
    rows = list(reader.read_rows(drain=True))
    assert [row["step"] for row in rows] == [2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [0.5, 0.4, 0.3, 0.2]
    assert [row["grad_norm"] for row in rows] == [1.0, 0.8, 0.6, 0.4]
    assert [row["lr"] for row in rows] == [3 * loss for loss in (0.5, 0.4, 0.3, 0.2)]
    assert [row["tokens"] for row in rows] == [128, 192, 256, 320]
    assert all(row["seconds"] >= 100 for row in rows)
    assert [row.get("final") for row in rows] == [None, None, None, True]


def test_on_a_cpu_a_step_is_read_immediately() -> None:
    reader = AsyncMetricReader(SETTINGS, CPU)
    reader.push(step_metrics(1.0), lr=1.0)
    assert len(list(reader.read_rows())) == 1


def test_a_loss_that_is_not_finite_becomes_none_in_a_skipped_step() -> None:
    reader = AsyncMetricReader(SETTINGS, CPU)
    reader.push(step_metrics(float("nan"), float("inf"), skipped=1.0), lr=1.0)
    (row,) = reader.read_rows()
    assert (row["loss"], row["grad_norm"], row["skipped"]) == (None, None, True)


def test_a_stop_request_of_any_rank_is_known_once_the_step_is_read() -> None:
    reader = AsyncMetricReader(SETTINGS, CPU, max_pending=1)
    reader.push(step_metrics(1.0, stop=1.0), lr=1.0)
    assert list(reader.read_rows()) == [] and not reader.stop_requested
    reader.push(step_metrics(1.0), lr=1.0)
    assert len(list(reader.read_rows())) == 1 and reader.stop_requested
