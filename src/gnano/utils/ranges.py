"""Ranges of numbers in configuration dataclasses: stated in a field's type, checked in one place.

    @dataclass(frozen=True, kw_only=True)
    class Schedule:
        peak: Annotated[float, Range(0, above=True)] = 3e-4  # learning rate after warm-up
        warmup: Annotated[int, Range(0)] = 1_000  # steps

        def __post_init__(self) -> None:
            check_ranges(self, "train.schedule")

Infinity and NaN are outside every range. The same check serves recipes, command lines and the
Python API, since all of them construct the dataclass.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, both included unless `above` or `below` excludes them."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False  # more than `least`, not `least` itself
    below: bool = False  # less than `most`, not `most` itself

    def __contains__(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        return low and high and -math.inf < value < math.inf

    def __str__(self) -> str:
        """What a value must be, as the end of a sentence: "at least 1", "more than 0 and …"."""
        bounds = []
        if self.least > -math.inf:
            bounds.append(f"{'more than' if self.above else 'at least'} {self.least:,}")
        if self.most < math.inf:
            bounds.append(f"{'less than' if self.below else 'at most'} {self.most:,}")
        return " and ".join(bounds) or "finite"


def check_ranges(config: object, table: str = "") -> None:
    """Raise ValueError, naming the key, for the first field outside the range in its annotation.

    `table` is the name of the configuration's table in a recipe, such as "train.schedule".
    """
    kind: Hashable = type(config)  # type: ignore[assignment]  # mypy holds no class for hashable
    for name, allowed in _ranges(kind).items():
        check_range(f"{table}.{name}" if table else name, getattr(config, name), allowed)


def check_range(key: str, value: float, allowed: Range) -> None:
    """Raise ValueError, naming the key, for a number outside the range."""
    if value not in allowed:
        wanted = allowed if -math.inf < value < math.inf else "finite"
        raise ValueError(f"{key} is {value}; it must be {wanted}.")


@cache
def _ranges(kind: Hashable) -> dict[str, Range]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: item
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for item in get_args(hint)[1:]
        if isinstance(item, Range)
    }
