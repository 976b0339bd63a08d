"""Plots the loss and the held-out bits per byte of a run in the terminal, side by side.

A panel is drawn in Braille characters, each a grid of 2 × 4 dots.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from gnano.reporting.plots import Curve, MetricRows, read_curves, smooth_curve
from gnano.utils.platform_support import require

WIDTH, HEIGHT = 80, 20  # characters of the plot
MAX_POINTS = 1_000  # of a curve: more points than dots only cost time


def render_terminal_plot(metrics: MetricRows, color: bool = True) -> str:
    """Return the smoothed loss and held-out bits per byte, `HEIGHT` lines of at most `WIDTH`.

    Without `color` the text has no escape codes, for a pipe, a log or an issue. Raises ValueError
    if plotext is not installed, or there is nothing to plot.
    """
    require("plotext", "plot", "Plots in the terminal need plotext")
    import plotext

    loss, heldout, _ = read_curves(metrics)
    panels: list[tuple[str, str, Curve]] = []  # title, color, curve
    if len(loss.steps):
        smoothed = smooth_curve(loss)
        panels.append((f"training loss: {smoothed.values[-1]:.2f}", "blue+", smoothed))
    for total in heldout[:1]:
        panels.append((f"held-out bits per byte: {total.values[-1]:.2f}", "orange+", total))
    if not panels:
        raise ValueError("There is nothing to plot: no step of this run has a finite loss.")

    # plotext has one figure per process, and limits it to the terminal by default
    plotext.terminal.limit(False, False)
    figure = plotext.figure.clear()
    try:
        figure.plot_size(WIDTH, HEIGHT)
        figure.subplots(1, len(panels))
        for column, (title, color_name, curve) in enumerate(panels, 1):
            panel = figure.subplot(1, column) if len(panels) > 1 else figure
            _set_up_axes(panel, curve, max(1, metrics[-1]["step"]))
            panel.title(title)
            kept = np.unique(np.linspace(0, len(curve.steps) - 1, MAX_POINTS).round()).astype(int)
            # a single Braille dot is easily missed
            dot = "braille" if len(curve.steps) > 1 else "●"
            marker = plotext.marker(dot, plotext.pixel(color_name))
            points = curve.steps[kept].tolist(), curve.values[kept].tolist()
            panel.draw(panel.signal(*points, marker=marker).lines().density("full"))
        text = str(figure.build().string(colorless=not color))
    finally:
        plotext.terminal.limit()
        plotext.figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _set_up_axes(panel: Any, curve: Curve, last_step: int) -> None:
    panel.theme("simple")  # the terminal's own colors for all but the curve
    panel.label("step", "x")
    for axis, side in (("x", "upper"), ("y", "right")):
        panel.axes(False, axis=axis, side=side)

    low, high = float(curve.values.min()), float(curve.values.max())
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
