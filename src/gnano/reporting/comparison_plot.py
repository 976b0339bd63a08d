"""A comparison as a plot: one panel per task, accuracy over training tokens.

    ┌ HellaSwag, acc_norm ───────────┐
    │                     ∘ SmolLM   │   ∘  published: small, gray, labeled
    │          ∘ Pythia-160M         │   ●  compared model, with an error bar of one standard error
    │   ●                            │   ─  compared model with an unknown number of tokens
    │- - - - - - - - - guessing - - -│
    └─ 10 B ──── 100 B ──── 1 T ─────┘

Only published scores of the panel's own metric are drawn, because the other has another scale.
"""

import io
import re
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnano.evals.comparison import Comparison, TaskColumn
from gnano.evals.comparison_table import format_count
from gnano.reporting.plots import LIGHT_PALETTE, style_axes
from gnano.utils.files import atomic_write_bytes
from gnano.utils.platform_support import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

MODEL_COLORS = (LIGHT_PALETTE.loss, *LIGHT_PALETTE.sources)
PANEL_WIDTH, PANEL_HEIGHT = 5.6, 4.2  # inches
DASH_PATTERN = (0, (4, 3))
MAX_OFFSET_WITHOUT_LINE = 6  # points
LABEL_ROUNDS = 4  # times that every label is placed again
# positions of a label: offset from its point in points, and the label's anchor
LABEL_PLACES = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"), (0, -6, "center", "top"),
    (5, 6, "left", "bottom"), (5, -6, "left", "top"),
    (-5, 6, "right", "bottom"), (-5, -6, "right", "top"),
    (6, 14, "left", "bottom"), (6, -14, "left", "top"),
    (-6, 14, "right", "bottom"), (-6, -14, "right", "top"),
)  # fmt: skip


class PlotPoint(NamedTuple):
    """A published score."""

    name: str
    tokens: int
    value: float


def check_plot_path(path: Path) -> None:
    """Raise ValueError if the plot cannot be written; called before hours of evaluation."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} cannot be written: the plot is a PNG, name a FILE.png.")
    require("matplotlib", "plot", "Plots need matplotlib")


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Write the plot; raise ValueError if there is no task or matplotlib is not installed."""
    check_plot_path(path)
    png = io.BytesIO()
    # without matplotlib's version, so that the same results give the same bytes
    draw_comparison(comparison).savefig(png, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, png.getvalue())


def draw_comparison(comparison: Comparison) -> "Figure":
    """Return the figure with a panel for each column."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not comparison.columns:
        raise ValueError("There is no task to draw; name some: --tasks or --files.")
    count = len(comparison.columns)
    across = count if count < 4 else 2 if count == 4 else 3
    down = ceil(count / across)
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14, wspace=0.02)  # inches, share
    legend_height = 0.3 * ceil((len(comparison.models) + 2) / across)
    size = across * PANEL_WIDTH, down * PANEL_HEIGHT + legend_height
    figure = Figure(figsize=size, dpi=160, facecolor=LIGHT_PALETTE.background, layout=layout)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    points = [
        [
            PlotPoint(row.name, row.tokens, score[0])
            for row in comparison.published
            if (score := column.reference_score(row)) and score[1] == column.metric and row.tokens
        ]
        for column in comparison.columns
    ]
    tokens = [model.tokens for model in comparison.models if model.tokens]
    tokens += [point.tokens for own in points for point in own]
    for axes, column, own in zip(panels, comparison.columns, points, strict=False):
        # all panels share the token scale
        axes.set_xscale("log")
        axes.set_xlim(min(tokens, default=1e9) / 3, max(tokens, default=1e12) * 3)
        _draw_panel(axes, column, comparison, own)
    _draw_legend(figure, comparison, across)
    figure.draw_without_rendering()  # lays out the panels; labels need their final positions
    figure.set_layout_engine("none")
    for axes, own in zip(panels, points, strict=False):
        _place_labels(axes, own)
    return figure


def _draw_panel(
    axes: "Axes", column: TaskColumn, comparison: Comparison, published: Sequence[PlotPoint]
) -> None:
    from matplotlib import ticker

    muted = LIGHT_PALETTE.muted
    for point in published:
        axes.plot(point.tokens, point.value, "o", color=muted, markersize=4, alpha=0.7)
    if column.chance:
        axes.axhline(column.chance, color=muted, linewidth=1, linestyle=DASH_PATTERN)
    for model, color in zip(comparison.models, cycle(MODEL_COLORS), strict=False):
        value, stderr = (one := column.accuracy_of(model)).value, one.stderr
        if model.tokens:
            axes.errorbar(
                model.tokens, value, stderr,
                fmt="o", color=color, markersize=7, elinewidth=1.6, capsize=3, zorder=3,
            )  # fmt: skip
        else:
            axes.axhline(value, color=color, linewidth=1.6)
            axes.axhspan(value - stderr, value + stderr, color=color, alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=9))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(
        lambda tokens, _: re.sub(r"\.0+ ", " ", format_count(round(tokens)))
    )
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.margins(y=0.12)
    style_axes(axes, LIGHT_PALETTE, f"{column.title}, {column.metric}", "training tokens")


def _draw_legend(figure: "Figure", comparison: Comparison, columns: int) -> None:
    """Draw the legend above all panels."""
    from matplotlib.lines import Line2D

    marker = partial(Line2D, [], [], markersize=6)
    entries = {}
    for model, color in zip(comparison.models, cycle(MODEL_COLORS), strict=False):
        shape, width = ("o", 0) if model.tokens else ("", 2)
        entries[model.name] = marker(color=color, marker=shape, lw=width)
    if comparison.published:
        entries["published"] = marker(color=LIGHT_PALETTE.muted, marker=".", lw=0)
    if any(column.chance for column in comparison.columns):
        entries["guessing"] = marker(color=LIGHT_PALETTE.muted, lw=1, ls=DASH_PATTERN)
    legend = figure.legend(
        list(entries.values()), list(map(str, range(len(entries)))), loc="outside upper left",
        ncols=columns, fontsize=10, frameon=False, labelcolor=LIGHT_PALETTE.text,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)  # a "$" in a name is a dollar
        text.set_text(name)  # set here: the constructor omits labels that begin with "_"


def _place_labels(axes: "Axes", points: Sequence[PlotPoint]) -> None:
    """Label each published point where the label hides the least of points, edges and labels.

    Every label takes its best place, given the places of the others, `LABEL_ROUNDS` times.
    """
    from matplotlib.patheffects import withStroke

    muted = LIGHT_PALETTE.muted
    to_pixels = axes.transData.transform
    dots = [
        to_pixels((x, y))
        for line in axes.lines
        if line.get_marker() in ("o", "_")  # points, and the ends of error bars
        for x, y in np.asarray(line.get_xydata())
    ]
    labels: list[Annotation] = []
    boxes: list[list[Bbox]] = []  # of each label at each place
    costs: list[list[float]] = []  # of each label at each place, without the other labels
    for point in points:
        xy = (point.tokens, point.value)
        label = axes.annotate(
            point.name, xy, (0, 0), textcoords="offset points", fontsize=7.5, color=muted
        )
        label.set_parse_math(False)  # a "$" in a name is a dollar
        label.set_path_effects([withStroke(linewidth=2.5, foreground=LIGHT_PALETTE.background)])
        labels.append(label)
        others = [dot for dot in dots if abs(dot - to_pixels(xy)).max() > 1]
        boxes.append([_move_label(label, place) for place in LABEL_PLACES])
        outside = (box.width * box.height - _shared_area(box, axes.bbox) for box in boxes[-1])
        hidden = (sum(box.padded(8).contains(*dot) for dot in others) for box in boxes[-1])
        costs.append([4 * area + 1_000 * n for area, n in zip(outside, hidden, strict=True)])
    chosen: dict[int, int] = {}
    for number in [*range(len(labels))] * LABEL_ROUNDS:
        taken = [boxes[other][place] for other, place in chosen.items() if other != number]
        overlaps = (sum(_shared_area(box, one) for one in taken) for box in boxes[number])
        totals = [cost + 2 * n for cost, n in zip(costs[number], overlaps, strict=True)]
        chosen[number] = totals.index(min(totals))
    line = {"arrowstyle": "-", "color": muted, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
    for number, place in chosen.items():
        x, y, *_ = LABEL_PLACES[place]
        _move_label(labels[number], LABEL_PLACES[place])
        if abs(y) > MAX_OFFSET_WITHOUT_LINE:  # a thin line connects the label to its point
            axes.annotate(
                "", labels[number].xy, (x, y), textcoords="offset points", arrowprops=line
            )


def _move_label(label: "Annotation", place: tuple[float, float, str, str]) -> "Bbox":
    """Move a label to a place relative to its point; return its box in pixels."""
    x, y, horizontal, vertical = place
    label.set(position=(x, y), ha=horizontal, va=vertical)
    return label.get_window_extent()


def _shared_area(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
