"""Which curves does a run have? Its loss, its held-out bits per byte, its accuracy on tasks.

A curve is what a plot needs and no more: steps and finite values. A step that was not measured
(held-out text is read only now and then) or that blew up to NaN is no point of the curve.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnano.report.figures import bits_per_byte, figure, source_bits, task_figures

Rows = Sequence[Mapping[str, Any]]  # what read_metrics returns


@dataclass(frozen=True)
class Curve:
    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class TaskCurve(Curve):
    measure: str  # what the values are: acc_norm where the length of an answer matters, else acc
    errors: NDArray[np.float64]  # standard error of each value; NaN where none is told


def loss_curve(metrics: Rows) -> Curve:
    """Training loss in nats per token."""
    return _curve("loss", ((row["step"], row.get("loss")) for row in metrics))


def heldout_curves(metrics: Rows) -> list[Curve]:
    """Held-out bits per byte: the total, then each source by name.

    Empty before the first measurement.
    """
    total = _curve("total", ((row["step"], bits_per_byte(row)) for row in metrics))
    if not len(total):
        return []
    found = [(row["step"], source_bits(row)) for row in metrics if row.get("heldout")]
    names = sorted({name for _, bits in found for name in bits})
    return [total, *(_curve(name, ((s, bits.get(name)) for s, bits in found)) for name in names)]


def task_curves(metrics: Rows) -> list[TaskCurve]:
    """The accuracy of each task by name: by character (`acc_norm`) where that was measured."""
    measured = [(row["step"], task_figures(row)) for row in metrics if row.get("tasks")]
    names = sorted({name for _, tasks in measured for name in tasks})
    return [
        _task_curve(name, [(step, tasks[name]) for step, tasks in measured if name in tasks])
        for name in names
    ]


def accuracy(curve: TaskCurve, point: int) -> str:
    """One of its points in words: 0.284 ± 0.020."""
    value, error = curve.values[point], curve.errors[point]
    return f"{value:.3f}" if np.isnan(error) else f"{value:.3f} ± {error:.3f}"


def smooth(curve: Curve) -> Curve:
    """The running mean over a twentieth of the run, without lag.

    The window is centred and narrower over the first steps, where the loss falls so fast that
    a wide one would lie above every point. At the end it loses only the half that has not
    happened yet, so that the last value is still a mean.
    """
    n = len(curve)
    here = np.arange(n)
    reach = np.minimum(here // 4, max(1, n // 40))
    start, stop = here - reach, np.minimum(here + reach + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    return Curve(curve.name, curve.steps, (sums[stop] - sums[start]) / (stop - start))


def _task_curve(name: str, found: Sequence[tuple[int, Mapping[str, float]]]) -> TaskCurve:
    # one measure all along: the two lie apart, and a curve of both would jump between them
    measure = "acc_norm" if any("acc_norm" in figures for _, figures in found) else "acc"
    curve = _curve(name, ((step, figures.get(measure)) for step, figures in found))
    errors = [figures.get("error", np.nan) for _, figures in found if measure in figures]
    return TaskCurve(name, curve.steps, curve.values, measure, np.asarray(errors, dtype=np.float64))


def _curve(name: str, points: Iterable[tuple[int, Any]]) -> Curve:
    finite = [(s, number) for s, value in points if (number := figure(value)) is not None]
    steps, values = zip(*finite, strict=True) if finite else ((), ())
    return Curve(name, np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
