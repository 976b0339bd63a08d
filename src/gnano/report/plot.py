"""A run as a picture: for the README and the report.

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
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from gnano.report.metrics import (
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MATPLOTLIB_MISSING = "Plots need matplotlib: pip install 'auto-g-nano[plot]'."


@dataclass(frozen=True)
class Palette:
    background: str
    text: str
    muted: str  # small print and axes
    grid: str
    loss: str
    sources: tuple[str, ...]  # told apart also by colour-blind eyes; repeats after the last


LIGHT_PALETTE = Palette(
    "#ffffff", "#1f2328", "#656d76", "#e7eaee", "#2563c9",
    ("#d1690e", "#0b8a74", "#7c4dcc", "#c2337a", "#8a6d0b", "#3b82a6"),
)  # fmt: skip
DARK_PALETTE = Palette(
    "#161b22", "#e6edf3", "#9198a1", "#2a313c", "#6ba1f5",
    ("#f0a35e", "#4fc3ab", "#b392f0", "#f07fb4", "#d6b94a", "#7cc0e0"),
)  # fmt: skip


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


def _style_axes(axes: "Axes", palette: Palette) -> None:
    """Only what the eye needs: a light grid, a base line, small grey numbers."""
    axes.set_facecolor(palette.background)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.muted)
    axes.tick_params(colors=palette.muted, labelsize=9, length=0, pad=6)
    axes.set_xlabel("step", color=palette.muted, fontsize=9)


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
