"""Plots the curves of a run's metrics in the terminal.

Loss and held-out text are panels of Braille characters, each a grid of 2 × 4 dots; the tasks are a
third panel where the terminal is wide enough.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gnano.reporting.plots import Curve, MetricRows, read_curves, smooth_curve
from gnano.utils.platform_support import require

MIN_PANEL_SIZE = 30, 8  # characters that a panel needs for its ticks and a curve
FRAME_WIDTH = 8  # characters of a panel's width that its title cannot use
MAX_POINTS = 1_000  # of a curve: more points than dots only cost time


def render_terminal_plot(
    metrics: MetricRows, width: int = 80, height: int = 20, color: bool = True
) -> str:
    """Return the smoothed loss and held-out bits per byte, `height` lines of at most `width`.

    The panels are side by side, or stacked and without tasks where the terminal is narrow. Without
    `color` the text has no escape codes, for a pipe, a log or an issue.
    """
    require("plotext", "plot", "Plots in the terminal need plotext")
    import plotext

    loss, heldout, tasks = read_curves(metrics)
    panels: list[tuple[str, str, Sequence[Curve]]] = []  # title, color, curves
    if len(loss.steps):
        smoothed = smooth_curve(loss)
        panels.append((f"training loss: {smoothed.values[-1]:.2f}", "blue+", [smoothed]))
    for total in heldout[:1]:
        panels.append((f"held-out bits per byte: {total.values[-1]:.2f}", "orange+", [total]))
    panel_width = width // (len(panels) + 1)
    if tasks and panel_width >= MIN_PANEL_SIZE[0]:
        tasks = sorted(tasks, key=lambda curve: -curve.values[-1])
        title = ", ".join(f"{curve.name} {curve.values[-1]:.2f}" for curve in tasks)
        if len(title) > panel_width - FRAME_WIDTH:
            lowest, highest = tasks[-1].values[-1], tasks[0].values[-1]
            title = f"{len(tasks)} tasks: {lowest:.2f} to {highest:.2f}"
        panels.append((title, "green+", tasks))
    if not panels:
        raise ValueError("There is nothing to plot: no step of this run has a finite loss.")
    columns = len(panels) if width >= len(panels) * MIN_PANEL_SIZE[0] else 1
    rows = len(panels) // columns
    if width < MIN_PANEL_SIZE[0] or height < rows * MIN_PANEL_SIZE[1]:
        raise ValueError(
            f"{width} × {height} characters are too few for a plot: "
            f"it needs at least {MIN_PANEL_SIZE[0]} × {rows * MIN_PANEL_SIZE[1]}."
        )

    # plotext has one figure per process, and limits it to the terminal by default
    plotext.terminal.limit(False, False)
    figure = plotext.figure.clear()
    try:
        figure.plot_size(width, height)
        figure.subplots(rows, columns)
        for number, (title, color_name, curves) in enumerate(panels):
            row, column = divmod(number, columns)
            panel = figure.subplot(row + 1, column + 1) if len(panels) > 1 else figure
            _set_up_axes(panel, curves, max(1, metrics[-1]["step"]))
            panel.title(title)
            for curve in curves:
                kept = np.unique(np.linspace(0, len(curve.steps) - 1, MAX_POINTS).round())
                points = [part[kept.astype(int)].tolist() for part in (curve.steps, curve.values)]
                # a single Braille dot is easily missed
                dot = "braille" if len(curve.steps) > 1 else "●"
                marker = plotext.marker(dot, plotext.pixel(color_name))
                panel.draw(panel.signal(*points, marker=marker).lines().density("full"))
        text = str(figure.build().string(colorless=not color))
    finally:
        plotext.terminal.limit()
        plotext.figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _set_up_axes(panel: Any, curves: Sequence[Curve], last_step: int) -> None:
    panel.theme("simple")  # the terminal's own colors for all but the curve
    panel.label("step", "x")
    for axis, side in (("x", "upper"), ("y", "right")):
        panel.axes(False, axis=axis, side=side)

    values = np.concatenate([curve.values for curve in curves])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    # space after the last step keeps the curve off the next panel's ticks
    for axis, start, stop in (("x", 0.0, 1.06 * last_step), ("y", low - margin, high + margin)):
        ticks = round_ticks(start, stop, 5, min_step=1.0 if axis == "x" else 0.0)
        gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
        decimals = max(0, -math.floor(math.log10(gap) + 1e-9))  # enough to tell them apart
        labels = [f"{tick:,.{decimals}f}" for tick in ticks]
        panel.ruler(axis).lim(start, stop).ticks(ticks, labels)


def round_ticks(start: float, stop: float, max_ticks: int, min_step: float = 0.0) -> list[float]:
    """Return up to `max_ticks` round numbers in [start, stop], 1, 2 or 5 × 10ⁿ apart."""
    rough = max((stop - start) / max_ticks, min_step)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, final = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    return [step * k for k in range(first, final + 1)]
