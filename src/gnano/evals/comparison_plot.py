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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

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
# where a name may stand beside its point: offset in points, and which of its ends that is
PLACES = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 6, "left", "bottom"),
    (5, -6, "left", "top"),
    (-5, 6, "right", "bottom"),
    (-5, -6, "right", "top"),
    (6, 14, "left", "bottom"),
    (6, -14, "left", "top"),
    (-6, 14, "right", "bottom"),
    (-6, -14, "right", "top"),
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
        _draw(axes, column, comparison, some)
        _scales(axes, comparison, [point for some in points for point in some])
    _legend(figure, comparison, across)
    figure.draw_without_rendering()  # panels find their places, then names theirs in them
    figure.set_layout_engine("none")
    for axes, some in zip(panels, points, strict=False):
        _name(axes, some)
    return figure


def _points(column: Column, comparison: Comparison) -> list[Point]:
    return [
        Point(row.name, row.tokens, cell[0])
        for row in comparison.published
        if (cell := column.published(row)) and cell[1] == column.metric and row.tokens
    ]


def _draw(axes: "Axes", column: Column, comparison: Comparison, published: Sequence[Point]) -> None:
    """A panel, but for its scales and for the names of what is published."""
    _quiet(axes, f"{column.title}, {column.metric}")
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
        else:  # nobody has told how many: it stands at any number
            low, high = found.value - found.error, found.value + found.error
            axes.axhline(found.value, color=color, linewidth=1.6)
            axes.axhspan(low, high, color=color, alpha=0.12, linewidth=0)


def _scales(axes: "Axes", comparison: Comparison, points: Sequence[Point]) -> None:
    """Tokens from the first to the last of all panels: one x, one number, wherever it is."""
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


def _quiet(axes: "Axes", title: str) -> None:
    """Only what the eye needs: a light grid, a base line, small grey numbers."""
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
    """What the signs mean, above all panels."""
    from matplotlib.lines import Line2D

    sign = partial(Line2D, [], [], markersize=6)
    signs = {}
    for model, color in zip(comparison.models, _colors(), strict=False):
        how = ("o", 0) if model.tokens else ("", 2)
        signs[model.name] = sign(color=color, marker=how[0], lw=how[1])
    if comparison.published:
        signs["published"] = sign(color=LIGHT.faint, marker=".", lw=0)
    if any(column.chance for column in comparison.columns):
        signs["guessing"] = sign(color=LIGHT.faint, lw=1, ls=DASHED)
    legend = figure.legend(
        list(signs.values()), list(map(str, range(len(signs)))), loc="outside upper left",
        ncols=across, fontsize=10, frameon=False, labelcolor=LIGHT.ink,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), signs, strict=True):
        text.set_parse_math(False)  # a "$" in a name is a dollar
        text.set_text(name)  # now: as a label, one that begins with "_" would be left out


def _name(axes: "Axes", points: Sequence[Point]) -> None:
    """Each published point's name where it hides the least: other points, the edge, other names.

    Every name looks for the best of its places, given those of the others, a few times over.
    """
    at = axes.transData.transform
    dots = [
        at((x, y))
        for line in axes.lines
        if line.get_marker() in ("o", "_")  # points, and the ends of errors
        for x, y in np.asarray(line.get_xydata())
    ]
    texts = [_text(axes, point) for point in points]
    boxes: list[list[Bbox]] = []  # of each name, at each place
    costs: list[list[float]] = []  # there, whatever the other names do
    for text in texts:
        others = [dot for dot in dots if abs(dot - at(text.xy)).max() > 1]
        boxes.append([_stand(text, place) for place in PLACES])
        costs.append(
            [
                4 * (box.width * box.height - _shared(box, axes.bbox))
                + 1_000 * sum(box.padded(8).contains(*dot) for dot in others)
                for box in boxes[-1]
            ]
        )
    chosen: dict[int, int] = {}
    for name in [*range(len(texts))] * 4:
        taken = [boxes[other][place] for other, place in chosen.items() if other != name]
        each = zip(boxes[name], costs[name], strict=True)
        whole = [cost + 2 * sum(_shared(box, one) for one in taken) for box, cost in each]
        chosen[name] = whole.index(min(whole))
    for name, place in chosen.items():
        x, y, *_ = PLACES[place]
        _stand(texts[name], PLACES[place])
        if abs(y) > NEAR:  # a thin line says whose name it is
            line = {"arrowstyle": "-", "color": LIGHT.faint, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", texts[name].xy, (x, y), textcoords="offset points", arrowprops=line)


def _text(axes: "Axes", point: Point) -> "Annotation":
    from matplotlib.patheffects import withStroke

    text = axes.annotate(
        point.name, (point.tokens, point.value), (0, 0), textcoords="offset points",
        fontsize=7.5, color=LIGHT.faint,
    )  # fmt: skip
    text.set_parse_math(False)  # a "$" in a name is a dollar
    text.set_path_effects([withStroke(linewidth=2.5, foreground=LIGHT.paper)])
    return text


def _stand(text: "Annotation", place: tuple[float, float, str, str]) -> "Bbox":
    """Where it then is, in pixels."""
    x, y, side, height = place
    text.set(position=(x, y), ha=side, va=height)
    return text.get_window_extent()


def _shared(one: "Bbox", other: "Bbox") -> float:
    """Area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
