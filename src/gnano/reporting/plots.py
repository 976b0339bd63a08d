"""A run in the terminal: the same two panels as the picture, drawn with Braille dots.

A Braille character is a grid of 2 × 4 dots, so a panel of 40 × 20 characters shows 80 × 80
points. Plain output (`color=False`) is characters only, for a pipe, a log or an issue.
Tasks have a third panel, where the terminal is wide enough for one beside the others.

A run as a picture: for the README and the report.

    ┌ training loss, nats per token ┐ ┌ held-out bits per byte ┐
    │ every step faint, smoothed    │ │ total, and each source │  names
    └───────────────────────────────┘ └────────────────────────┘
    ┌ accuracy on tasks, where the run was asked any ──────────┐
    │ each with its standard error as a band                   │  names
    └──────────────────────────────────────────────────────────┘

Matplotlib's pyplot keeps one global list of figures and asks for a display; a `Figure`
saved as PNG is drawn by Agg and needs neither, so this works in a server, a thread or over ssh.
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
from gnano.utils.atomic_io import atomic_write_bytes
from gnano.utils.plot_style import LIGHT_PALETTE, MATPLOTLIB_MISSING, Palette, _style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


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


def save_png_plot(metrics: MetricRows, path: Path, title: str) -> None:
    """Write the curves of a run (rows of `read_metrics`) as a PNG of 1,760 × 720 pixels.

    A run that was asked tasks has a panel of them below, and 1,760 × 1,200 pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, render_png_plot(metrics, title))


def render_png_plot(metrics: MetricRows, title: str, palette: Palette = LIGHT_PALETTE) -> bytes:
    """The same picture as bytes, on light or dark paper."""
    try:
        from matplotlib import ticker
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise ValueError(MATPLOTLIB_MISSING) from None

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14, wspace=0.02)  # inches, share
    tasks = task_curves(metrics)
    size = 11, 7.5 if tasks else 4.5
    figure = Figure(figsize=size, dpi=160, facecolor=palette.background, layout=layout)
    if title:
        heading = figure.suptitle(
            title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=palette.text
        )
        heading.set_parse_math(False)  # a "$" in a run's name is a dollar
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 4)) if tasks else figure.add_gridspec(1, 2)
    left, right = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    below = [figure.add_subplot(grid[1, :])] if tasks else []
    for axes in (left, right, *below):
        _style_axes(axes, palette)
        # all from 0 to the last step: a point of one panel lies under the same x in the other
        axes.set_xlim(0, max(1, metrics[-1]["step"]) * 1.02)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    _draw_loss(left, loss_curve(metrics), palette)
    _draw_heldout(right, heldout_curves(metrics), bool(metrics[-1].get("final")), palette)
    for axes in below:
        _draw_tasks(axes, tasks, palette)

    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the same run, the same bytes
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
    now = f"{mean.values[-1]:.2f}, smoothed"
    axes.set_title(now, loc="right", fontsize=9, color=palette.loss, pad=10)


def _draw_heldout(axes: "Axes", curves: list[Curve], is_final: bool, palette: Palette) -> None:
    """`whole`: the last point was measured on all held-out text, the others on a part of it."""
    _set_panel_title(axes, "Held-out bits per byte", palette)
    if not curves:
        _draw_placeholder(axes, "not measured yet", palette)
        return
    total, *sources = curves
    colors = dict(zip([curve.name for curve in sources], cycle(palette.sources), strict=False))
    # from the highest curve to the lowest, so that the legend reads like the panel
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
    # all eight known tasks are told apart: where the colours begin again the lines are dashed
    looks = [(color, *more) for more in (("-", "o"), ("--", "s")) for color in palette.sources]
    look = dict(zip([curve.name for curve in curves], cycle(looks), strict=False))
    curves = sorted(curves, key=lambda curve: -curve.values[-1])
    for curve in curves:
        color, dash, end = look[curve.name]
        low, high = curve.values - curve.standard_errors, curve.values + curve.standard_errors
        axes.plot(curve.steps, curve.values, dash, color=color, linewidth=1.6, zorder=3)
        _mark_last_point(axes.lines[-1], end)
        if len(curve) > 1:
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.15, linewidth=0)
        else:  # a band of one point has no width
            axes.vlines(curve.steps, low, high, color=color, alpha=0.4, linewidth=1.6)
    names = [f"{format_accuracy(curve, -1)}  {_shorten_name(curve.name)}" for curve in curves]
    _add_legend(axes, names, "last measured", palette)


def _shorten_name(name: str, max_length: int = 22) -> str:
    """A long name would take its room from the curves; its end says more than its start."""
    return name if len(name) <= max_length else "…" + name[1 - max_length :]


def _mark_last_point(line: "Line2D", marker: str = "o") -> None:
    """A dot where a curve stands now: a run of one step is a dot, not an empty panel."""
    line.set(marker=marker, markersize=5, markevery=[-1])


def _set_panel_title(axes: "Axes", title: str, palette: Palette) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=palette.text, pad=10)


def _draw_placeholder(axes: "Axes", text: str, palette: Palette) -> None:
    middle = axes.text(0.5, 0.5, text, transform=axes.transAxes, color=palette.muted)
    middle.set(ha="center", va="center")
    axes.set_yticks([])


def _add_legend(axes: "Axes", names: list[str], title: str, palette: Palette) -> None:
    """The lines of a panel by name, beside it: inside, a flat curve would run through them."""
    legend = axes.legend(
        axes.lines, names, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.02),
        alignment="left", fontsize=9, title_fontsize=9, labelcolor=palette.text,
        handlelength=1.4, frameon=False,
    )  # fmt: skip
    legend.get_title().set_color(palette.muted)
    for text in legend.get_texts():
        text.set_parse_math(False)
