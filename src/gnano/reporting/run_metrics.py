"""Reads values and curves from a run's metrics.

A log may be damaged anywhere, so only finite numbers are taken. A curve holds the steps at which
a value was measured: held-out text is measured only at some steps, and a loss may be NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MetricRow = Mapping[str, Any]
MetricRows = Sequence[MetricRow]  # what read_metrics returns


@dataclass(frozen=True)
class Curve:
    """The measured values of a metric, by step."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class TaskCurve(Curve):
    """The accuracy of a task, by step."""

    metric: str  # acc_norm if the task has it, else acc
    standard_errors: NDArray[np.float64]  # NaN where unknown


def finite_number(value: Any) -> float | None:
    """Return a logged value as a float, or None if it is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more digits than a float can hold
        return None


def finite_numbers(values: Any) -> dict[str, float]:
    """Return the entries of a mapping that are finite numbers, unchanged."""
    named = values if isinstance(values, dict) else {}
    return {name: value for name, value in named.items() if finite_number(value) is not None}


def heldout_bits_per_byte(row: MetricRow) -> float | None:
    """Return the held-out loss of a step, or None if it was not measured."""
    heldout = row.get("heldout")
    return finite_number(heldout.get("bits_per_byte")) if isinstance(heldout, dict) else None


def heldout_bits_by_source(row: MetricRow) -> dict[str, float]:
    """Return the held-out loss of each source, by name."""
    heldout = row.get("heldout")
    return finite_numbers(heldout.get("sources")) if isinstance(heldout, dict) else {}


def task_metrics(row: MetricRow) -> dict[str, dict[str, float]]:
    """Return each task's `acc`, `acc_norm`, `error` and `items`; only tasks with an accuracy."""
    tasks = row.get("tasks")
    named = tasks.items() if isinstance(tasks, dict) else ()
    known = {name: finite_numbers(values) for name, values in named}
    return {name: task for name, task in known.items() if "acc" in task or "acc_norm" in task}


def loss_curve(metrics: MetricRows) -> Curve:
    """Return the training loss in nats per token."""
    return _make_curve("loss", ((row["step"], row.get("loss")) for row in metrics))


def heldout_curves(metrics: MetricRows) -> list[Curve]:
    """Return the held-out bits per byte: the total, then each source; empty if never measured."""
    total = _make_curve("total", ((row["step"], heldout_bits_per_byte(row)) for row in metrics))
    if not len(total):
        return []
    found = [(row["step"], heldout_bits_by_source(row)) for row in metrics if row.get("heldout")]
    names = sorted({name for _, bits in found for name in bits})
    return [
        total,
        *(_make_curve(name, ((s, bits.get(name)) for s, bits in found)) for name in names),
    ]


def task_curves(metrics: MetricRows) -> list[TaskCurve]:
    """Return the accuracy of each task, by name."""
    measured = [(row["step"], task_metrics(row)) for row in metrics if row.get("tasks")]
    names = sorted({name for _, tasks in measured for name in tasks})
    return [
        _make_task_curve(name, [(step, tasks[name]) for step, tasks in measured if name in tasks])
        for name in names
    ]


def format_accuracy(curve: TaskCurve, index: int) -> str:
    """Format one point of a curve: 0.284 ± 0.020."""
    value, error = curve.values[index], curve.standard_errors[index]
    return f"{value:.3f}" if np.isnan(error) else f"{value:.3f} ± {error:.3f}"


def smooth_curve(curve: Curve) -> Curve:
    """Return the running mean over a twentieth of the run, without lag.

    The window is centered and narrower over the first steps, where the loss falls so fast that
    the mean of a wide one would be above every point. It ends at the last step.
    """
    n = len(curve)
    center = np.arange(n)
    half_width = np.minimum(center // 4, max(1, n // 40))
    start, stop = center - half_width, np.minimum(center + half_width + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    return Curve(curve.name, curve.steps, (sums[stop] - sums[start]) / (stop - start))


def _make_task_curve(name: str, points: Sequence[tuple[int, Mapping[str, float]]]) -> TaskCurve:
    # one metric for the curve: acc_norm and acc differ, and a mixed curve would jump
    metric = "acc_norm" if any("acc_norm" in values for _, values in points) else "acc"
    curve = _make_curve(name, ((step, values.get(metric)) for step, values in points))
    errors = [values.get("error", np.nan) for _, values in points if metric in values]
    return TaskCurve(name, curve.steps, curve.values, metric, np.asarray(errors, dtype=np.float64))


def _make_curve(name: str, points: Iterable[tuple[int, Any]]) -> Curve:
    finite = [(s, number) for s, value in points if (number := finite_number(value)) is not None]
    steps, values = zip(*finite, strict=True) if finite else ((), ())
    return Curve(name, np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
