"""What a plot is: a script, and a table of the things it may be about.

A row is drawn once a story, so the thing that is lost is the thing that is found. Every plot
names what the hero will remember of it in `dream`, which the shared endings speak of.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """One kind of story."""

    title: str  # a phrase
    text: str  # a script
    rows: list[dict[str, str]]  # what it may be about; a cell is a phrase, too
    cast: str = "any"  # or "animals"
    season: str = "any"  # or "summer", "winter": which days fit
