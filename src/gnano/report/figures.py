"""What does a row of a log say in numbers? Only what is one: a log may be damaged anywhere."""

import math
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


def figure(value: Any) -> float | None:
    """A finite number of a log, or None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more digits than a float can hold
        return None


def figures(values: Any) -> dict[str, float]:
    """Those of some named values that are finite numbers, as they were written."""
    named = values if isinstance(values, dict) else {}
    return {name: value for name, value in named.items() if figure(value) is not None}


def bits_per_byte(row: Row) -> float | None:
    """The held-out loss that was measured at a step, if one was."""
    heldout = row.get("heldout")
    return figure(heldout.get("bits_per_byte")) if isinstance(heldout, dict) else None


def source_bits(row: Row) -> dict[str, float]:
    """The same of each source, by name."""
    heldout = row.get("heldout")
    return figures(heldout.get("sources")) if isinstance(heldout, dict) else {}


def task_figures(row: Row) -> dict[str, dict[str, float]]:
    """What was measured of each task at a step: `acc`, `acc_norm`, `error`, `items`.

    A task without an accuracy was not measured.
    """
    tasks = row.get("tasks")
    named = tasks.items() if isinstance(tasks, dict) else ()
    found = {name: figures(values) for name, values in named}
    return {name: told for name, told in found.items() if not {"acc", "acc_norm"}.isdisjoint(told)}
