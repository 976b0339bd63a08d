"""Reads the curves of a run's metrics, and plots them as a PNG picture; the style of all plots.

    ┌ training loss, nats per token ┐ ┌ held-out bits per byte ┐
    │ every step faint, smoothed    │ │ total, and each source │  legend
    └───────────────────────────────┘ └────────────────────────┘
    ┌ accuracy on tasks, if any was evaluated ─────────────────┐
    │ each with its standard error as a band                   │  legend
    └──────────────────────────────────────────────────────────┘

A log may be damaged anywhere, so only finite numbers are taken. A curve holds the steps at which
a value was measured: held-out text is measured only at some steps, and a loss may be NaN.

Pyplot keeps a global list of figures and needs a display; a `Figure` saved as PNG is drawn by Agg
and needs neither, so this works in a server, in a thread or over ssh.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.utils.files import atomic_write_bytes
from gnano.utils.platform_support import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MetricRow = Mapping[str, Any]
MetricRows = Sequence[MetricRow]  # what read_metrics returns

MAX_NAME_LENGTH = 22  # the end of a name in a legend, which leaves space for the curves
# a dot on the latest value, the only thing visible in a run of one step
LAST_POINT: dict[str, Any] = {"marker": "o", "markersize": 5, "markevery": [-1]}


@dataclass(frozen=True)
class Palette:
    """The colors of a plot, as hexadecimal RGB."""

    background: str
    text: str
    muted: str  # small print and axes
    grid: str
    loss: str
    sources: tuple[str, ...]  # distinct for color-blind readers; repeats after the last


LIGHT_PALETTE = Palette(
    "#ffffff", "#1f2328", "#656d76", "#e7eaee", "#2563c9",
    ("#d1690e", "#0b8a74", "#7c4dcc", "#c2337a", "#8a6d0b", "#3b82a6"),
)  # fmt: skip
DARK_PALETTE = Palette(
    "#161b22", "#e6edf3", "#9198a1", "#2a313c", "#6ba1f5",
    ("#f0a35e", "#4fc3ab", "#b392f0", "#f07fb4", "#d6b94a", "#7cc0e0"),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The measured values of a metric, by step."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    metric: str = ""  # of a task: acc_norm if the task has it, else acc
    standard_errors: NDArray[np.float64] | None = None  # of a task; NaN where unknown

    def format_point(self, index: int) -> str:
        """Format a value: 0.284, or 0.284 ± 0.020 where the standard error is known."""
        value = f"{self.values[index]:.3f}"
        error = np.nan if self.standard_errors is None else self.standard_errors[index]
        return value if np.isnan(error) else f"{value} ± {error:.3f}"


class RunCurves(NamedTuple):
    """The curves of a run."""

    loss: Curve  # in training, nats per token; without a point if no loss was finite
    heldout: list[Curve]  # bits per byte: the total, then each source; empty if never measured
    tasks: list[Curve]  # accuracy of each task


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


def heldout_bits_per_byte(row: MetricRow) -> tuple[float | None, dict[str, float]]:
    """Return the held-out loss of a step, None if it was not measured, and that of each source."""
    heldout = row.get("heldout")
    heldout = heldout if isinstance(heldout, dict) else {}
    return finite_number(heldout.get("bits_per_byte")), finite_numbers(heldout.get("sources"))


def task_metrics(row: MetricRow) -> dict[str, dict[str, float]]:
    """Return each task's `acc`, `acc_norm`, `error` and `items`; only tasks with an accuracy."""
    tasks = row.get("tasks")
    named = tasks.items() if isinstance(tasks, dict) else ()
    known = {name: finite_numbers(values) for name, values in named}
    return {name: task for name, task in known.items() if "acc" in task or "acc_norm" in task}


def read_curves(metrics: MetricRows) -> RunCurves:
    """Return the curves of a run's metrics."""
    loss = _make_curve("loss", ((row["step"], row.get("loss")) for row in metrics))
    measured = [(row["step"], *heldout_bits_per_byte(row)) for row in metrics if row.get("heldout")]
    total = _make_curve("total", ((step, bits) for step, bits, _ in measured))
    heldout = [total] if len(total.steps) else []
    for name in sorted({name for *_, sources in measured for name in sources}) if heldout else ():
        points = ((step, sources.get(name)) for step, _, sources in measured)
        heldout.append(_make_curve(name, points))

    evaluated = [(row["step"], task_metrics(row)) for row in metrics if row.get("tasks")]
    tasks = []
    for name in sorted({name for _, found in evaluated for name in found}):
        rows = [(step, found[name]) for step, found in evaluated if name in found]
        # one metric for the curve: acc_norm and acc differ, and a mixed curve would jump
        metric = "acc_norm" if any("acc_norm" in values for _, values in rows) else "acc"
        curve = _make_curve(name, ((step, values.get(metric)) for step, values in rows))
        errors = [values.get("error", math.nan) for _, values in rows if metric in values]
        tasks.append(Curve(name, curve.steps, curve.values, metric, np.array(errors)))
    return RunCurves(loss, heldout, tasks)


def _make_curve(name: str, points: Iterable[tuple[int, Any]]) -> Curve:
    finite = [(s, number) for s, value in points if (number := finite_number(value)) is not None]
    steps, values = np.array(finite, dtype=np.float64).reshape(-1, 2).T
    return Curve(name, steps, values)


def smooth_curve(curve: Curve) -> Curve:
    """Return the running mean over a twentieth of the run, without lag.

    The window is centered and narrower over the first steps, where the loss falls so fast that
    the mean of a wide one would be above every point. It ends at the last step.
    """
    n = len(curve.steps)
    center = np.arange(n)
    half_width = np.minimum(center // 4, max(1, n // 40))
    start, stop = center - half_width, np.minimum(center + half_width + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    return Curve(curve.name, curve.steps, (sums[stop] - sums[start]) / (stop - start))


def save_png_plot(metrics: MetricRows, path: Path, title: str) -> None:
    """Write the curves of a run as a PNG of 1,760 × 720 pixels, or 1,760 × 1,200 with tasks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, render_png_plot(metrics, title))


def render_png_plot(metrics: MetricRows, title: str, palette: Palette = LIGHT_PALETTE) -> bytes:
    """Return the picture of `save_png_plot` as bytes, in light or dark colors."""
    require("matplotlib", "plot", "Plots need matplotlib")
    from matplotlib import ticker
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    loss, heldout, tasks = read_curves(metrics)
    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14, wspace=0.02)  # inches, share
    size = 11, 7.5 if tasks else 4.5
    figure = Figure(figsize=size, dpi=160, facecolor=palette.background, layout=layout)
    if title:
        heading = figure.suptitle(
            title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=palette.text
        )
        heading.set_parse_math(False)  # a "$" in a run's name is a dollar sign
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 4)) if tasks else figure.add_gridspec(1, 2)
    left, right = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    panels = {
        left: ("Training loss (nats per token)", "" if len(loss.steps) else "no finite loss yet"),
        right: ("Held-out bits per byte", "" if heldout else "not measured yet"),
    }
    if tasks:
        panels[figure.add_subplot(grid[1, :])] = ("Accuracy on tasks, ± standard error", "")
    for axes, (name, missing) in panels.items():
        style_axes(axes, palette, name, "step")
        # all panels share the x axis, from 0 to the last step
        axes.set_xlim(0, max(1, metrics[-1]["step"]) * 1.02)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
        if missing:
            place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, missing, color=palette.muted, **place)
            axes.set_yticks([])

    if len(loss.steps):
        mean = smooth_curve(loss)
        left.plot(loss.steps, loss.values, color=palette.loss, alpha=0.3, linewidth=0.8)
        left.plot(mean.steps, mean.values, color=palette.loss, linewidth=1.8, **LAST_POINT)
        latest = f"{mean.values[-1]:.2f}, smoothed"
        left.set_title(latest, loc="right", fontsize=9, color=palette.loss, pad=10)
    if heldout:
        total: dict[str, Any] = {"color": palette.text, "linewidth": 2.2, "zorder": 3}
        sources = cycle({"color": color, "linewidth": 1.4} for color in palette.sources)
        # the last point of a finished run is of all held-out text
        legend = "all held-out text" if metrics[-1].get("final") else "so far"
        _draw_curves(right, heldout, chain([total], sources), legend, palette)
    if tasks:
        # lines are dashed where the colors repeat, so all eight known tasks differ
        styles = cycle(
            {"color": color, "linestyle": dash, "marker": marker, "linewidth": 1.6, "zorder": 3}
            for dash, marker in (("-", "o"), ("--", "s"))
            for color in palette.sources
        )
        _draw_curves(axes, tasks, styles, "last measured", palette)

    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # reproducible bytes
    return png.getvalue()


def _draw_curves(
    axes: "Axes",
    curves: Sequence[Curve],
    styles: Iterable[dict[str, Any]],
    legend_title: str,
    palette: Palette,
) -> None:
    """Draw curves in the styles, and a legend beside them: inside, a flat curve would cross it."""
    labels = []
    styled = list(zip(curves, styles, strict=False))
    # from the highest curve to the lowest: the legend has the order of the panel
    for number in np.argsort([-curve.values[-1] for curve in curves], kind="stable"):
        curve, style = styled[number]
        axes.plot(curve.steps, curve.values, **{**LAST_POINT, **style})
        value = f"{curve.values[-1]:.2f}"
        if curve.standard_errors is not None:
            value = curve.format_point(-1)
            low, high = curve.values - curve.standard_errors, curve.values + curve.standard_errors
            if len(curve.steps) > 1:
                axes.fill_between(
                    curve.steps, low, high, color=style["color"], alpha=0.15, linewidth=0
                )
            else:  # a band of one point has no width
                axes.vlines(curve.steps, low, high, color=style["color"], alpha=0.4, linewidth=1.6)
        name = curve.name
        if len(name) > MAX_NAME_LENGTH:
            name = "…" + name[1 - MAX_NAME_LENGTH :]
        labels.append(f"{value}  {name}")
    legend = axes.legend(
        axes.lines, labels, title=legend_title, loc="upper left", bbox_to_anchor=(1.01, 1.02),
        alignment="left", fontsize=9, title_fontsize=9, labelcolor=palette.text,
        handlelength=1.4, frameon=False,
    )  # fmt: skip
    legend.get_title().set_color(palette.muted)
    for text in legend.get_texts():
        text.set_parse_math(False)


def style_axes(axes: "Axes", palette: Palette, title: str, x_label: str) -> None:
    """Draw the title, a light horizontal grid, one base line and small gray numbers."""
    axes.set_title(title, loc="left", fontsize=10.5, color=palette.text, pad=10)
    axes.set_facecolor(palette.background)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.muted)
    axes.tick_params(colors=palette.muted, labelsize=9, length=0, pad=6)
    axes.set_xlabel(x_label, color=palette.muted, fontsize=9)
