"""A run in the terminal: the same two panels as the picture, drawn with Braille dots.

A Braille character is a grid of 2 × 4 dots, so a panel of 40 × 20 characters shows 80 × 80
points. Plain output (`color=False`) is characters only, for a pipe, a log or an issue.
Tasks have a third panel, where the terminal is wide enough for one beside the others.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gnano.report.metrics import (
    Curve,
    MetricRows,
    heldout_curves,
    loss_curve,
    smooth_curve,
    task_curves,
)

PLOTEXT_MISSING = "Plots in the terminal need plotext: pip install 'auto-g-nano[plot]'."
MIN_PANEL_SIZE = 30, 8  # characters a panel needs for its numbers and a curve beside them
FRAME_WIDTH = 8  # characters of a panel's width that its title cannot have


def render_terminal_plot(
    metrics: MetricRows, width: int = 80, height: int = 20, color: bool = True
) -> str:
    """Smoothed training loss and held-out bits per byte, `height` lines of at most `width`.

    The panels stand side by side, or one above the other where the terminal is narrow; that of
    the tasks is left out then.
    """
    try:
        import plotext
    except ModuleNotFoundError:
        raise ValueError(PLOTEXT_MISSING) from None

    panels = _build_panels(metrics, width)
    if not panels:
        raise ValueError("There is nothing to plot: no step of this run has a finite loss.")
    columns = len(panels) if width >= len(panels) * MIN_PANEL_SIZE[0] else 1
    rows = len(panels) // columns
    if width < MIN_PANEL_SIZE[0] or height < rows * MIN_PANEL_SIZE[1]:
        raise ValueError(
            f"{width} × {height} characters are too few for a plot: "
            f"give it at least {MIN_PANEL_SIZE[0]} × {rows * MIN_PANEL_SIZE[1]}."
        )

    # plotext has one figure for the whole process, and keeps it within the terminal unless told
    plotext.terminal.limit(False, False)
    figure = plotext.figure.clear()
    try:
        figure.plot_size(width, height)
        figure.subplots(rows, columns)
        last = max(1, metrics[-1]["step"])
        for number, (title, ink, curves) in enumerate(panels):
            row, column = divmod(number, columns)
            panel = figure.subplot(row + 1, column + 1) if len(panels) > 1 else figure
            _set_up_panel(panel, title, curves, last)
            for curve in curves:
                # a single Braille dot is easily missed
                dot = "braille" if len(curve) > 1 else "●"
                _draw_curve(panel, curve, plotext.marker(dot, plotext.pixel(ink)))
        text = str(figure.build().string(colorless=not color))
    finally:
        plotext.terminal.limit()
        plotext.figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _build_panels(metrics: MetricRows, width: int) -> list[tuple[str, str, Sequence[Curve]]]:
    """Title, colour and curves of each panel there is something, and room, for."""
    first = ("training loss", "blue+", [smooth_curve(loss_curve(metrics))])
    second = ("held-out bits per byte", "orange+", heldout_curves(metrics)[:1])
    panels: list[tuple[str, str, Sequence[Curve]]] = [
        (f"{name}: {curve.values[-1]:.2f}", ink, [curve])
        for name, ink, curves in (first, second)
        for curve in curves
        if len(curve)
    ]
    tasks = sorted(task_curves(metrics), key=lambda curve: -curve.values[-1])
    room = width // (len(panels) + 1)
    if tasks and room >= MIN_PANEL_SIZE[0]:
        panels.append((_task_title(tasks, room - FRAME_WIDTH), "green+", tasks))
    return panels


def _task_title(tasks: Sequence[Curve], max_width: int) -> str:
    """From the highest to the lowest, as they stand in the panel; their range if they are many."""
    title = ", ".join(f"{curve.name} {curve.values[-1]:.2f}" for curve in tasks)
    if len(title) <= max_width:
        return title
    lowest, highest = tasks[-1].values[-1], tasks[0].values[-1]
    return f"{len(tasks)} tasks: {lowest:.2f} to {highest:.2f}"


def _set_up_panel(panel: Any, title: str, curves: Sequence[Curve], last: int) -> None:
    panel.theme("simple")  # the terminal's own colours for all but the curve
    panel.title(title)
    panel.label("step", "x")
    for axis, side in (("x", "upper"), ("y", "right")):
        panel.axes(False, axis=axis, side=side)

    values = np.concatenate([curve.values for curve in curves])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    # a little air after the last step keeps the curve off the next panel's numbers
    for axis, start, stop in (("x", 0.0, 1.06 * last), ("y", low - margin, high + margin)):
        places = round_ticks(start, stop, 5, min_step=1.0 if axis == "x" else 0.0)
        panel.ruler(axis).lim(start, stop).ticks(places, _format_ticks(places))


def _draw_curve(panel: Any, curve: Curve, marker: Any) -> None:
    # more points than dots only cost time
    thin = np.unique(np.linspace(0, len(curve) - 1, 1_000).round().astype(int))
    steps, values = curve.steps[thin].tolist(), curve.values[thin].tolist()
    signal = panel.signal(steps, values, marker=marker).lines().density("full")
    panel.draw(signal)


def round_ticks(start: float, stop: float, max_ticks: int, min_step: float = 0.0) -> list[float]:
    """Up to `most` round numbers in [start, stop], a step of 1, 2 or 5 × 10ⁿ apart."""
    rough = max((stop - start) / max_ticks, min_step)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, final = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    return [step * k for k in range(first, final + 1)]


def _format_ticks(values: list[float]) -> list[str]:
    """The ticks written with as many decimals as tell them apart."""
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    return [f"{place:,.{decimals}f}" for place in values]
