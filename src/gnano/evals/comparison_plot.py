"""A comparison as a picture: a panel for each task, accuracy over the tokens of training.

    ┌ HellaSwag, acc_norm ───────────┐
    │                     ∘ SmolLM   │   ∘  published, small and grey, by name
    │          ∘ Pythia-160M         │   ●  yours, with one standard error up and down
    │   ●                            │   ─  yours, where its tokens are unknown
    │- - - - - - - - - guessing - - -│
    └─ 10 B ──── 100 B ──── 1 T ─────┘

Only published scores of the panel's own metric are drawn: the other is another scale.
"""

import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnano.evals.comparing import Column, Comparison
from gnano.evals.comparison_table import counted
from gnano.report.plot import LIGHT, NEEDS_MATPLOTLIB
from gnano.utils.atomic_io import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

WIDTH, HEIGHT = 5.6, 4.2  # of a panel, inches
DASHED = (0, (4, 3))
NEAR = 6  # points
# places of a name beside its point: offset in points, and the end of the name that is there
PLACES = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"), (0, -6, "center", "top"),
    (5, 6, "left", "bottom"), (5, -6, "left", "top"),
    (-5, 6, "right", "bottom"), (-5, -6, "right", "top"),
    (6, 14, "left", "bottom"), (6, -14, "left", "top"),
    (-6, 14, "right", "bottom"), (-6, -14, "right", "top"),
)  # fmt: skip


class Point(NamedTuple):
    name: str
    tokens: int
    value: float


def check_plot(path: Path | None) -> None:
    """Raise ValueError, before hours of evaluation, if the picture cannot be drawn."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} cannot be drawn: the picture is a PNG, name a FILE.png.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(NEEDS_MATPLOTLIB)


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture. Raises ValueError where there is no task, or no matplotlib."""
    png = io.BytesIO()
    # without matplotlib's version in it: the same results, the same bytes
    drawn(comparison).savefig(png, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png.getvalue())


def drawn(comparison: Comparison) -> "Figure":
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
    legend = 0.3 * ceil((len(comparison.models) + 2) / across)
    size = across * WIDTH, down * HEIGHT + legend
    figure = Figure(figsize=size, dpi=160, facecolor=LIGHT.paper, layout=layout)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    points = [_points(column, comparison) for column in comparison.columns]
    for axes, column, some in zip(panels, comparison.columns, points, strict=False):
        _draw_scores(axes, column, comparison, some)
        _set_scales(axes, comparison, [point for some in points for point in some])
    _legend(figure, comparison, across)
    figure.draw_without_rendering()  # places the panels, then the names in them
    figure.set_layout_engine("none")
    for axes, some in zip(panels, points, strict=False):
        _place_names(axes, some)
    return figure


def _points(column: Column, comparison: Comparison) -> list[Point]:
    return [
        Point(row.name, row.tokens, cell[0])
        for row in comparison.published
        if (cell := column.published(row)) and cell[1] == column.metric and row.tokens
    ]


def _draw_scores(
    axes: "Axes", column: Column, comparison: Comparison, published: Sequence[Point]
) -> None:
    _style_axes(axes, f"{column.title}, {column.metric}")
    for point in published:
        axes.plot(point.tokens, point.value, "o", color=LIGHT.faint, markersize=4, alpha=0.7)
    if column.chance:
        axes.axhline(column.chance, color=LIGHT.faint, linewidth=1, linestyle=DASHED)
    for model, color in zip(comparison.models, _colors(), strict=False):
        found = column.of(model)
        if model.tokens:
            axes.errorbar(
                model.tokens, found.value, found.error,
                fmt="o", color=color, markersize=7, elinewidth=1.6, capsize=3, zorder=3,
            )  # fmt: skip
        else:  # of unknown tokens: a line across
            low, high = found.value - found.error, found.value + found.error
            axes.axhline(found.value, color=color, linewidth=1.6)
            axes.axhspan(low, high, color=color, alpha=0.12, linewidth=0)


def _set_scales(axes: "Axes", comparison: Comparison, points: Sequence[Point]) -> None:
    """Give all panels the same range of tokens."""
    from matplotlib import ticker

    tokens = [point.tokens for point in points]
    tokens += [model.tokens for model in comparison.models if model.tokens]
    axes.set_xscale("log")
    axes.set_xlim(min(tokens, default=1e9) / 3, max(tokens, default=1e12) * 3)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=9))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(lambda tokens, _: re.sub(r"\.0+ ", " ", counted(round(tokens))))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.margins(y=0.12)


def _style_axes(axes: "Axes", title: str) -> None:
    """Draw a light grid, a base line and small grey numbers, no more."""
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


def _legend(figure: "Figure", comparison: Comparison, across: int) -> None:
    """Explain the signs above all panels."""
    from matplotlib.lines import Line2D

    marker = partial(Line2D, [], [], markersize=6)
    entries = {}
    for model, color in zip(comparison.models, _colors(), strict=False):
        shape, width = ("o", 0) if model.tokens else ("", 2)
        entries[model.name] = marker(color=color, marker=shape, lw=width)
    if comparison.published:
        entries["published"] = marker(color=LIGHT.faint, marker=".", lw=0)
    if any(column.chance for column in comparison.columns):
        entries["guessing"] = marker(color=LIGHT.faint, lw=1, ls=DASHED)
    legend = figure.legend(
        list(entries.values()), list(map(str, range(len(entries)))), loc="outside upper left",
        ncols=across, fontsize=10, frameon=False, labelcolor=LIGHT.ink,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)  # a "$" in a name is a dollar
        text.set_text(name)  # only now: a label that begins with "_" would be left out


def _place_names(axes: "Axes", points: Sequence[Point]) -> None:
    """Write each published point's name where it hides the least of points, edges and names.

    Every name takes the best of its places, given those of the others, four times over.
    """
    at = axes.transData.transform
    dots = [
        at((x, y))
        for line in axes.lines
        if line.get_marker() in ("o", "_")  # points, and the ends of errors
        for x, y in np.asarray(line.get_xydata())
    ]
    texts = [_annotate(axes, point) for point in points]
    boxes: list[list[Bbox]] = []  # of each name, at each place
    costs: list[list[float]] = []  # there, without the other names
    for text in texts:
        others = [dot for dot in dots if abs(dot - at(text.xy)).max() > 1]
        boxes.append([_move(text, place) for place in PLACES])
        costs.append(
            [
                4 * (box.width * box.height - _shared_area(box, axes.bbox))
                + 1_000 * sum(box.padded(8).contains(*dot) for dot in others)
                for box in boxes[-1]
            ]
        )
    chosen: dict[int, int] = {}
    for name in [*range(len(texts))] * 4:
        taken = [boxes[other][place] for other, place in chosen.items() if other != name]
        each = zip(boxes[name], costs[name], strict=True)
        totals = [cost + 2 * sum(_shared_area(box, one) for one in taken) for box, cost in each]
        chosen[name] = totals.index(min(totals))
    for name, place in chosen.items():
        x, y, *_ = PLACES[place]
        _move(texts[name], PLACES[place])
        if abs(y) > NEAR:  # a thin line connects the name with its point
            line = {"arrowstyle": "-", "color": LIGHT.faint, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", texts[name].xy, (x, y), textcoords="offset points", arrowprops=line)


def _annotate(axes: "Axes", point: Point) -> "Annotation":
    from matplotlib.patheffects import withStroke

    text = axes.annotate(
        point.name, (point.tokens, point.value), (0, 0), textcoords="offset points",
        fontsize=7.5, color=LIGHT.faint,
    )  # fmt: skip
    text.set_parse_math(False)  # a "$" in a name is a dollar
    text.set_path_effects([withStroke(linewidth=2.5, foreground=LIGHT.paper)])
    return text


def _move(text: "Annotation", place: tuple[float, float, str, str]) -> "Bbox":
    """Move a name to a place of its point; return its box in pixels."""
    x, y, side, height = place
    text.set(position=(x, y), ha=side, va=height)
    return text.get_window_extent()


def _shared_area(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
