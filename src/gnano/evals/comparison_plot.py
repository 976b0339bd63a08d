"""A comparison as a picture: a panel a task, accuracy over the tokens that a model had seen.

    ┌ HellaSwag, acc_norm ───────────┐
    │                     ∘ SmolLM   │   ∘  published, small and grey, by name
    │          ∘ Pythia-160M         │   ●  yours, with one standard error up and down
    │   ●                            │   ─  yours, where nobody has told its tokens
    │- - - - - - - - - guessing - - -│
    └─ 10 B ──── 100 B ──── 1 T ─────┘

Published scores of the panel's own accuracy alone are drawn: the other is another scale.
"""

import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from gnano.evals.comparing import Column, Comparison
from gnano.evals.comparison_table import counted
from gnano.report import write_whole
from gnano.report.plot import LIGHT, NEEDS_MATPLOTLIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import BboxBase

WIDTH, HEIGHT = 5.6, 4.2  # of a panel, inches
# where a label may stand beside its point: offset in points, and which of its ends that is
PLACES = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 6, "left", "bottom"),
    (5, -6, "left", "top"),
    (-5, 6, "right", "bottom"),
    (-5, -6, "right", "top"),
)


@dataclass(frozen=True)
class Point:
    name: str
    tokens: int
    value: float


def check_plot(path: Path | None) -> None:
    """Before the hours that come first: can the picture be drawn? Raises ValueError if not."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} cannot be drawn: the picture is a PNG, name a FILE.png.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(NEEDS_MATPLOTLIB)


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture. Raises ValueError where there is no task, or no matplotlib."""
    write_whole(path, comparison_png(comparison))


def comparison_png(comparison: Comparison) -> bytes:
    """The picture as bytes."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise ValueError(NEEDS_MATPLOTLIB) from None
    if not comparison.columns:
        raise ValueError("There is no task to draw; name some: --tasks or --files.")
    count = len(comparison.columns)
    across = count if count < 4 else 2 if count == 4 else 3
    down = ceil(count / across)
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14, wspace=0.02)  # inches, share
    figure = Figure(
        figsize=(across * WIDTH, down * HEIGHT + 0.5), dpi=160, facecolor=LIGHT.paper, layout=layout
    )
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    labels = [
        _draw(axes, column, comparison)
        for axes, column in zip(panels, comparison.columns, strict=False)
    ]
    _legend(figure, comparison)
    figure.draw_without_rendering()  # panels find their places, and then each label finds its own
    figure.set_layout_engine("none")
    for axes, points in zip(panels, labels, strict=False):
        _name(axes, points)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the same results, same bytes
    return png.getvalue()


def _draw(axes: "Axes", column: Column, comparison: Comparison) -> list[Point]:
    """A panel but for the names of its published points, which are returned."""
    from matplotlib import ticker

    _quiet(axes, f"{column.title}, {column.metric}")
    points = [
        Point(row.name, row.tokens, cell[0])
        for row in comparison.published
        if (cell := column.published(row)) and cell[1] == column.metric and row.tokens
    ]
    for point in points:
        axes.plot(point.tokens, point.value, "o", color=LIGHT.faint, markersize=4, alpha=0.7)
    if column.chance:
        axes.axhline(column.chance, color=LIGHT.faint, linewidth=1, linestyle=(0, (4, 3)))
    for model, color in zip(comparison.models, _colors(), strict=False):
        found = column.of(model)
        if model.tokens:
            axes.errorbar(
                model.tokens, found.value, found.error,
                fmt="o", color=color, markersize=7, elinewidth=1.6, capsize=3, zorder=3,
            )  # fmt: skip
        else:  # nobody has told how many: it stands at any number
            axes.axhline(found.value, color=color, linewidth=1.6)
            axes.axhspan(
                found.value - found.error, found.value + found.error, color=color, alpha=0.12
            )
    tokens = [*(p.tokens for p in points), *(m.tokens for m in comparison.models if m.tokens)]
    axes.set_xscale("log")
    axes.set_xlim(min(tokens, default=1e9) / 3, max(tokens, default=1e12) * 3)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=6))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: counted(round(value)).replace(".00", ""))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.margins(y=0.12)
    return points


def _quiet(axes: "Axes", title: str) -> None:
    """Only what the eye needs: a light grid, a base line, small grey numbers."""
    axes.set_facecolor(LIGHT.paper)
    axes.grid(axis="y", color=LIGHT.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.faint)
    axes.tick_params(colors=LIGHT.faint, labelsize=9, length=0, pad=6)
    axes.set_xlabel("tokens trained on", color=LIGHT.faint, fontsize=9)
    axes.set_title(title, loc="left", fontsize=10.5, color=LIGHT.ink, pad=10)


def _colors() -> Iterator[str]:
    return cycle((LIGHT.loss, *LIGHT.sources))


def _legend(figure: "Figure", comparison: Comparison) -> None:
    """What the signs mean, above all panels."""
    from matplotlib.lines import Line2D

    def sign(
        name: str, color: str, marker: str, line: "str | tuple[int, tuple[int, int]]"
    ) -> Line2D:
        return Line2D([], [], color=color, marker=marker, linestyle=line, label=name, markersize=6)

    signs = [
        sign(model.name, color, "o" if model.tokens else "", "" if model.tokens else "-")
        for model, color in zip(comparison.models, _colors(), strict=False)
    ]
    if comparison.published:
        signs.append(sign("published", LIGHT.faint, ".", ""))
    if any(column.chance for column in comparison.columns):
        signs.append(sign("guessing", LIGHT.faint, "", (0, (4, 3))))
    legend = figure.legend(
        handles=signs, loc="outside upper left", ncols=4, fontsize=10, frameon=False,
        labelcolor=LIGHT.ink,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a "$" in a name is a dollar


def _name(axes: "Axes", points: Sequence[Point]) -> None:
    """Each published point's name where it hides the least: other names, points, the edge."""
    from matplotlib.transforms import Bbox

    taken = [
        Bbox.from_bounds(x - 7, y - 7, 14, 14)
        for line in axes.lines
        if line.get_marker() == "o"
        for x, y in axes.transData.transform(line.get_xydata())
    ]
    for point in sorted(points, key=lambda one: one.value):
        text = axes.annotate(
            point.name, (point.tokens, point.value), textcoords="offset points", fontsize=7.5,
            color=LIGHT.faint,
        )  # fmt: skip
        text.set_parse_math(False)
        tried = []
        for x, y, side, height in PLACES:
            text.set(position=(x, y), ha=side, va=height)
            box = text.get_window_extent()
            hidden = sum(_shared(box, other) for other in taken)
            outside = box.width * box.height - _shared(box, axes.bbox)
            tried.append((hidden + 2 * outside, len(tried), box))
        _, best, box = min(tried, key=lambda one: one[:2])
        x, y, side, height = PLACES[best]
        text.set(position=(x, y), ha=side, va=height)
        taken.append(box)


def _shared(one: "Bbox", other: "BboxBase") -> float:
    """Area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)
