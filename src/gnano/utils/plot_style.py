"""Colors and axes of all plots."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MATPLOTLIB_MISSING = "Plots need matplotlib: pip install 'auto-g-nano[plot]'."


@dataclass(frozen=True)
class Palette:
    """The colors of a plot, as hexadecimal RGB."""

    background: str
    text: str
    muted: str  # small print and axes
    grid: str
    loss: str
    sources: tuple[str, ...]  # distinct for color-blind readers; repeats after the last


LIGHT_PALETTE = Palette(
    "#ffffff", "#1f2328", "#656d76", "#e7eaee", "#2563c9",
    ("#d1690e", "#0b8a74", "#7c4dcc", "#c2337a", "#8a6d0b", "#3b82a6"),
)  # fmt: skip
DARK_PALETTE = Palette(
    "#161b22", "#e6edf3", "#9198a1", "#2a313c", "#6ba1f5",
    ("#f0a35e", "#4fc3ab", "#b392f0", "#f07fb4", "#d6b94a", "#7cc0e0"),
)  # fmt: skip


def style_axes(axes: "Axes", palette: Palette) -> None:
    """Draw a light horizontal grid, one base line and small gray numbers."""
    axes.set_facecolor(palette.background)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.muted)
    axes.tick_params(colors=palette.muted, labelsize=9, length=0, pad=6)
    axes.set_xlabel("step", color=palette.muted, fontsize=9)
