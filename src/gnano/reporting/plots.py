"""Plots a run's curves as a PNG picture, and in the terminal.

    ┌ training loss, nats per token ┐ ┌ held-out bits per byte ┐
    │ every step faint, smoothed    │ │ total, and each source │  legend
    └───────────────────────────────┘ └────────────────────────┘
    ┌ accuracy on tasks, if any was evaluated ─────────────────┐
    │ each with its standard error as a band                   │  legend
    └──────────────────────────────────────────────────────────┘

The terminal shows the two upper panels in Braille characters, each a grid of 2 × 4 dots, and the
tasks as a third panel where the terminal is wide enough.

Pyplot keeps a global list of figures and needs a display; a `Figure` saved as PNG is drawn by Agg
and needs neither, so this works in a server, in a thread or over ssh.
"""

import io
import math
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnano.reporting.run_metrics import (
    Curve,
    MetricRows,
    TaskCurve,
    format_accuracy,
    heldout_curves,
    loss_curve,
    smooth_curve,
    task_curves,
)
from gnano.utils.files import atomic_write_bytes
from gnano.utils.platform_support import require
from gnano.utils.plot_style import LIGHT_PALETTE, Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


MIN_PANEL_SIZE = 30, 8  # characters that a panel needs for its ticks and a curve
FRAME_WIDTH = 8  # characters of a panel's width that its title cannot use


def render_terminal_plot(
    metrics: MetricRows, width: int = 80, height: int = 20, color: bool = True
) -> str:
    """Return the smoothed loss and held-out bits per byte, `height` lines of at most `width`.

    The panels are side by side, or stacked and without tasks where the terminal is narrow. Without
    `color` the text has no escape codes, for a pipe, a log or an issue.
    """
    require("plotext", "plot", "Plots in the terminal need plotext")
    import plotext

    panels = _build_panels(metrics, width)
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
        last = max(1, metrics[-1]["step"])
        for number, (title, color_name, curves) in enumerate(panels):
            row, column = divmod(number, columns)
            panel = figure.subplot(row + 1, column + 1) if len(panels) > 1 else figure
            _set_up_panel(panel, title, curves, last)
            for curve in curves:
                # a single Braille dot is easily missed
                dot = "braille" if len(curve) > 1 else "●"
                _draw_curve(panel, curve, plotext.marker(dot, plotext.pixel(color_name)))
        text = str(figure.build().string(colorless=not color))
    finally:
        plotext.terminal.limit()
        plotext.figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _build_panels(metrics: MetricRows, width: int) -> list[tuple[str, str, Sequence[Curve]]]:
    """Return title, color and curves of each panel that has data and fits."""
    first = ("training loss", "blue+", [smooth_curve(loss_curve(metrics))])
    second = ("held-out bits per byte", "orange+", heldout_curves(metrics)[:1])
    panels: list[tuple[str, str, Sequence[Curve]]] = [
        (f"{name}: {curve.values[-1]:.2f}", color, [curve])
        for name, color, curves in (first, second)
        for curve in curves
        if len(curve)
    ]
    tasks = sorted(task_curves(metrics), key=lambda curve: -curve.values[-1])
    panel_width = width // (len(panels) + 1)
    if tasks and panel_width >= MIN_PANEL_SIZE[0]:
        panels.append((_task_title(tasks, panel_width - FRAME_WIDTH), "green+", tasks))
    return panels


def _task_title(tasks: Sequence[Curve], max_width: int) -> str:
    """List the tasks from the highest to the lowest, or their range if the list is too long."""
    title = ", ".join(f"{curve.name} {curve.values[-1]:.2f}" for curve in tasks)
    if len(title) <= max_width:
        return title
    lowest, highest = tasks[-1].values[-1], tasks[0].values[-1]
    return f"{len(tasks)} tasks: {lowest:.2f} to {highest:.2f}"


def _set_up_panel(panel: Any, title: str, curves: Sequence[Curve], last: int) -> None:
    panel.theme("simple")  # the terminal's own colors for all but the curve
    panel.title(title)
    panel.label("step", "x")
    for axis, side in (("x", "upper"), ("y", "right")):
        panel.axes(False, axis=axis, side=side)

    values = np.concatenate([curve.values for curve in curves])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    # space after the last step keeps the curve off the next panel's ticks
    for axis, start, stop in (("x", 0.0, 1.06 * last), ("y", low - margin, high + margin)):
        ticks = round_ticks(start, stop, 5, min_step=1.0 if axis == "x" else 0.0)
        panel.ruler(axis).lim(start, stop).ticks(ticks, _format_ticks(ticks))


def _draw_curve(panel: Any, curve: Curve, marker: Any) -> None:
    # more points than dots only cost time
    kept = np.unique(np.linspace(0, len(curve) - 1, 1_000).round().astype(int))
    steps, values = curve.steps[kept].tolist(), curve.values[kept].tolist()
    signal = panel.signal(steps, values, marker=marker).lines().density("full")
    panel.draw(signal)


def round_ticks(start: float, stop: float, max_ticks: int, min_step: float = 0.0) -> list[float]:
    """Return up to `max_ticks` round numbers in [start, stop], 1, 2 or 5 × 10ⁿ apart."""
    rough = max((stop - start) / max_ticks, min_step)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, final = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    return [step * k for k in range(first, final + 1)]


def _format_ticks(values: list[float]) -> list[str]:
    """Format ticks with just enough decimals to tell them apart."""
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    return [f"{value:,.{decimals}f}" for value in values]


def save_png_plot(metrics: MetricRows, path: Path, title: str) -> None:
    """Write the curves of a run (rows of `read_metrics`) as a PNG of 1,760 × 720 pixels.

    With a panel of tasks it has 1,760 × 1,200 pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, render_png_plot(metrics, title))


def render_png_plot(metrics: MetricRows, title: str, palette: Palette = LIGHT_PALETTE) -> bytes:
    """Return the picture of `save_png_plot` as bytes, in light or dark colors."""
    require("matplotlib", "plot", "Plots need matplotlib")
    from matplotlib import ticker
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14, wspace=0.02)  # inches, share
    tasks = task_curves(metrics)
    size = 11, 7.5 if tasks else 4.5
    figure = Figure(figsize=size, dpi=160, facecolor=palette.background, layout=layout)
    if title:
        heading = figure.suptitle(
            title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=palette.text
        )
        heading.set_parse_math(False)  # a "$" in a run's name is a dollar sign
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 4)) if tasks else figure.add_gridspec(1, 2)
    left, right = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    below = [figure.add_subplot(grid[1, :])] if tasks else []
    for axes in (left, right, *below):
        # a light horizontal grid, one base line and small gray numbers
        axes.set_facecolor(palette.background)
        axes.grid(axis="y", color=palette.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(palette.muted)
        axes.tick_params(colors=palette.muted, labelsize=9, length=0, pad=6)
        axes.set_xlabel("step", color=palette.muted, fontsize=9)
        # all panels share the x axis, from 0 to the last step
        axes.set_xlim(0, max(1, metrics[-1]["step"]) * 1.02)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    _draw_loss(left, loss_curve(metrics), palette)
    _draw_heldout(right, heldout_curves(metrics), bool(metrics[-1].get("final")), palette)
    for axes in below:
        _draw_tasks(axes, tasks, palette)

    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # reproducible bytes
    return png.getvalue()


def _draw_loss(axes: "Axes", loss: Curve, palette: Palette) -> None:
    _set_panel_title(axes, "Training loss (nats per token)", palette)
    if not len(loss):
        _draw_placeholder(axes, "no finite loss yet", palette)
        return
    mean = smooth_curve(loss)
    axes.plot(loss.steps, loss.values, color=palette.loss, alpha=0.3, linewidth=0.8)
    axes.plot(mean.steps, mean.values, color=palette.loss, linewidth=1.8)
    _mark_last_point(axes.lines[-1])
    latest = f"{mean.values[-1]:.2f}, smoothed"
    axes.set_title(latest, loc="right", fontsize=9, color=palette.loss, pad=10)


def _draw_heldout(axes: "Axes", curves: list[Curve], is_final: bool, palette: Palette) -> None:
    """Draw the total and each source; if final, the last point is of all held-out text."""
    _set_panel_title(axes, "Held-out bits per byte", palette)
    if not curves:
        _draw_placeholder(axes, "not measured yet", palette)
        return
    total, *sources = curves
    colors = dict(zip([curve.name for curve in sources], cycle(palette.sources), strict=False))
    # from the highest curve to the lowest: the legend has the order of the panel
    curves = sorted(curves, key=lambda curve: -curve.values[-1])
    for curve in curves:
        if curve is total:
            axes.plot(curve.steps, curve.values, color=palette.text, linewidth=2.2, zorder=3)
        else:
            axes.plot(curve.steps, curve.values, color=colors[curve.name], linewidth=1.4)
        _mark_last_point(axes.lines[-1])
    names = [f"{curve.values[-1]:.2f}  {_shorten_name(curve.name)}" for curve in curves]
    _add_legend(axes, names, "all held-out text" if is_final else "so far", palette)


def _draw_tasks(axes: "Axes", curves: list[TaskCurve], palette: Palette) -> None:
    _set_panel_title(axes, "Accuracy on tasks, ± standard error", palette)
    # lines are dashed where the colors repeat, so all eight known tasks differ
    styles = [(color, *more) for more in (("-", "o"), ("--", "s")) for color in palette.sources]
    style = dict(zip([curve.name for curve in curves], cycle(styles), strict=False))
    curves = sorted(curves, key=lambda curve: -curve.values[-1])
    for curve in curves:
        color, dash, marker = style[curve.name]
        low, high = curve.values - curve.standard_errors, curve.values + curve.standard_errors
        axes.plot(curve.steps, curve.values, dash, color=color, linewidth=1.6, zorder=3)
        _mark_last_point(axes.lines[-1], marker)
        if len(curve) > 1:
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.15, linewidth=0)
        else:  # a band of one point has no width
            axes.vlines(curve.steps, low, high, color=color, alpha=0.4, linewidth=1.6)
    names = [f"{format_accuracy(curve, -1)}  {_shorten_name(curve.name)}" for curve in curves]
    _add_legend(axes, names, "last measured", palette)


def _shorten_name(name: str, max_length: int = 22) -> str:
    """Keep the end of a long name, so that the legend leaves space for the curves."""
    return name if len(name) <= max_length else "…" + name[1 - max_length :]


def _mark_last_point(line: "Line2D", marker: str = "o") -> None:
    """Mark the latest value with a dot, the only thing visible in a run of one step."""
    line.set(marker=marker, markersize=5, markevery=[-1])


def _set_panel_title(axes: "Axes", title: str, palette: Palette) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=palette.text, pad=10)


def _draw_placeholder(axes: "Axes", text: str, palette: Palette) -> None:
    middle = axes.text(0.5, 0.5, text, transform=axes.transAxes, color=palette.muted)
    middle.set(ha="center", va="center")
    axes.set_yticks([])


def _add_legend(axes: "Axes", names: list[str], title: str, palette: Palette) -> None:
    """Put the legend next to the panel: inside, a flat curve would cross it."""
    legend = axes.legend(
        axes.lines, names, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.02),
        alignment="left", fontsize=9, title_fontsize=9, labelcolor=palette.text,
        handlelength=1.4, frameon=False,
    )  # fmt: skip
    legend.get_title().set_color(palette.muted)
    for text in legend.get_texts():
        text.set_parse_math(False)
