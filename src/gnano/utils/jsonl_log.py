"""The events of a run in `events.jsonl`: starts and ends, what was saved and what failed.

    {"time": "2026-11-25T00:15:06Z", "event": "saved", "step": 1000, "folder": "step-00001000"}

started, saved, not saved, damaged, rolled back, stopped, finished, failed.

A log of JSON lines that is only ever appended to, and that a full disk does not stop.

A line that cannot be written is kept and tried again with the next one, so the log has a gap
only if the process ends before there is room. What a kill tore, in the middle of a line, is left
as a line of its own, which readers skip.

The metrics of a run: its log as rows, the finite numbers in a row, and the curves of a run.

`metrics.jsonl` is append-only: one JSON object a line. A run that is killed and resumed restarts
from its last checkpoint, so some steps are written twice, and the line that was being written may
be torn:

    {"step": 7, "loss": 5.20, …}
    {"step": 8, "loss": 5.1                  torn: skipped
    {"step": 7, "loss": 5.21, …}             the later line counts

A log may be damaged anywhere, so only finite numbers are taken from a row. A curve holds the steps
at which a value was measured: held-out text is measured only now and then, and a loss may be NaN.
"""

import json
import math
import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gnano.utils.text import dump_json

EVENTS_FILE = "events.jsonl"


class EventLog:
    """Written by the main rank alone; an end is logged only after a start."""

    def __init__(self, run: Path, is_main: bool) -> None:
        self.path, self.is_main = run / EVENTS_FILE, is_main
        self.writer: JsonLinesWriter | None = None
        self.has_started = False

    def log(self, event: str, **facts: Any) -> None:
        if self.is_main:
            self.writer = self.writer or JsonLinesWriter(self.path)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.writer.write(time=now, event=event, **facts)

    def log_start(self, step: int, total_steps: int, world_size: int) -> None:
        process = {"pid": os.getpid(), "host": socket.gethostname()}
        self.log("started", step=step, steps=total_steps, ranks=world_size, **process)
        self.has_started = True

    def log_end(self, step: int, stopped_by: signal.Signals | None) -> None:
        if stopped_by is None:
            self.log("finished", step=step)
        else:
            self.log("stopped", step=step, signal=stopped_by.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.has_started and isinstance(error, Exception):
            self.log("failed", reason=f"{type(error).__name__}: {error}")
        elif self.has_started and error is not None:
            self.log("stopped", at_once=True)
        if self.writer is not None:
            self.writer.close()


class JsonLinesWriter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: int | None = None
        self.pending = b""
        self.last_error: OSError | None = None  # why the last line is still unwritten
        self.flush()

    def write(self, **values: Any) -> bool:
        """Append a line; False where it has to wait, for the reason `lacking`."""
        self.pending += dump_json(values).encode() + b"\n"
        return self.flush()

    def flush(self) -> bool:
        try:
            if self.file is None:
                self.file = self._open()
            while self.pending:
                self.pending = self.pending[os.write(self.file, self.pending) :]
            self.last_error = None
        except OSError as error:
            self.last_error = OSError(error.errno, error.strerror, str(self.path))
        return not self.pending

    def close(self) -> int:
        """How many lines could not be written to the end."""
        self.flush()
        if self.file is not None:
            os.close(self.file)
        return self.pending.count(b"\n")

    def _open(self) -> int:
        # unbuffered: a line that fails must not come again, half of it, with a later one
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = os.lseek(file, 0, os.SEEK_END)
        if end > 0 and os.pread(file, 1, end - 1) != b"\n":
            self.pending = b"\n" + self.pending
        return file


ROW_PREFIX = '{"step"'  # how the trainer begins every line
MetricRow = Mapping[str, Any]
MetricRows = Sequence[MetricRow]  # what read_metrics returns


@dataclass(frozen=True)
class Curve:
    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class TaskCurve(Curve):
    metric: str  # what the values are: acc_norm where the length of an answer matters, else acc
    standard_errors: NDArray[np.float64]  # standard error of each value; NaN where unknown


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`, one a step, in the order of the steps.

    FileNotFoundError if there is no such file, ValueError if it holds no whole line yet.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give the metrics.jsonl inside a run's folder, "
            f"or start the run first."
        )
    rows: dict[int, dict[str, Any]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if (row := _parse_row(line)) is not None:
                step = row["step"]
                # a line without a loss adds to its step (a last measurement); it does not redo it
                rows[step] = row if "loss" in row else {**rows.get(step, {}), **row}
    if not rows:
        raise ValueError(
            f"{path} holds no finished step yet: wait for the run's first step, then try again."
        )
    return [rows[step] for step in sorted(rows)]


def _parse_row(line: str) -> dict[str, Any] | None:
    """Return the row of a line, or None if the line is torn."""
    # a torn line has no newline, so the resumed run may have appended to it: only the part after
    # the last start can be complete
    start = line.rfind(ROW_PREFIX)
    try:
        row = json.loads(line if start < 0 else line[start:])
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def finite_number(value: Any) -> float | None:
    """Return a value of a log as a float, or None if it is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more digits than a float can hold
        return None


def finite_numbers(values: Any) -> dict[str, float]:
    """Return those of some named values that are finite numbers, as they were written."""
    named = values if isinstance(values, dict) else {}
    return {name: value for name, value in named.items() if finite_number(value) is not None}


def heldout_bits_per_byte(row: MetricRow) -> float | None:
    """Return the held-out loss that was measured at a step, if one was."""
    heldout = row.get("heldout")
    return finite_number(heldout.get("bits_per_byte")) if isinstance(heldout, dict) else None


def heldout_bits_by_source(row: MetricRow) -> dict[str, float]:
    """Return the held-out loss of each source, by name."""
    heldout = row.get("heldout")
    return finite_numbers(heldout.get("sources")) if isinstance(heldout, dict) else {}


def task_metrics(row: MetricRow) -> dict[str, dict[str, float]]:
    """Return what was measured of each task at a step: `acc`, `acc_norm`, `error`, `items`.

    A task without an accuracy was not measured.
    """
    tasks = row.get("tasks")
    named = tasks.items() if isinstance(tasks, dict) else ()
    known = {name: finite_numbers(values) for name, values in named}
    return {name: task for name, task in known.items() if "acc" in task or "acc_norm" in task}


def loss_curve(metrics: MetricRows) -> Curve:
    """Return the training loss in nats per token."""
    return _make_curve("loss", ((row["step"], row.get("loss")) for row in metrics))


def heldout_curves(metrics: MetricRows) -> list[Curve]:
    """Return the held-out bits per byte: the total, then each source by name.

    Empty before the first measurement.
    """
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
    """Return the accuracy of each task by name: `acc_norm`, by character, where it was measured."""
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
    the mean of a wide one would be above every point. At the end it is cut off at the last step.
    """
    n = len(curve)
    center = np.arange(n)
    half_width = np.minimum(center // 4, max(1, n // 40))
    start, stop = center - half_width, np.minimum(center + half_width + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    return Curve(curve.name, curve.steps, (sums[stop] - sums[start]) / (stop - start))


def _make_task_curve(name: str, points: Sequence[tuple[int, Mapping[str, float]]]) -> TaskCurve:
    # one measure for the whole curve: the two differ, and a mixed curve would jump
    measure = "acc_norm" if any("acc_norm" in figures for _, figures in points) else "acc"
    curve = _make_curve(name, ((step, figures.get(measure)) for step, figures in points))
    errors = [figures.get("error", np.nan) for _, figures in points if measure in figures]
    return TaskCurve(name, curve.steps, curve.values, measure, np.asarray(errors, dtype=np.float64))


def _make_curve(name: str, points: Iterable[tuple[int, Any]]) -> Curve:
    finite = [(s, number) for s, value in points if (number := finite_number(value)) is not None]
    steps, values = zip(*finite, strict=True) if finite else ((), ())
    return Curve(name, np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
