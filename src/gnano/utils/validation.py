"""Checks of configuration values: number ranges, conflicting statements, settings without effect.

    @dataclass(frozen=True, kw_only=True)
    class Schedule:
        peak: Annotated[float, Range(0, exclusive_minimum=True)] = 3e-4  # learning rate
        warmup: Annotated[int, Range(0)] = 1_000  # steps

        def __post_init__(self) -> None:
            check_field_ranges(self, "train.schedule")

Infinity and NaN are outside every range, a `float` is outside that of an `int` field, and None is
not checked. The same check serves recipes, command lines and the Python API, since all of them
construct the dataclass.
"""

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints

MAX_FLOAT = sys.float_info.max


class ConflictingValuesError(ValueError):
    """The same fact is stated twice, with different values."""


def require_agreement(fact: str, values_by_place: Mapping[str, Any]) -> Any:
    """Return the value that all places state, or None if no place states one (None).

    Readers differ in which statement they use, so a file that contradicts itself would be a
    different model for each of them. Raises ConflictingValuesError, naming two places and values.
    """
    stated = {place: value for place, value in values_by_place.items() if value is not None}
    first = next(iter(stated), "")
    for place, value in stated.items():
        if value != stated[first]:
            raise ConflictingValuesError(
                f"{fact} is stated twice, and differently: {first} is {stated[first]!r}, and "
                f"{place} is {value!r}; correct the one that is wrong."
            )
    return stated.get(first)


@dataclass(frozen=True)
class Range:
    """The numbers from `minimum` to `maximum`, both included unless marked as exclusive."""

    minimum: float = -math.inf
    maximum: float = math.inf
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.minimum if self.exclusive_minimum else value >= self.minimum
        high = value < self.maximum if self.exclusive_maximum else value <= self.maximum
        return low and high and abs(value) <= MAX_FLOAT

    def __str__(self) -> str:
        """Return the end of a sentence "it must be …": "at least 1", "more than 0 and …"."""
        low = "more than" if self.exclusive_minimum else "at least"
        high = "less than" if self.exclusive_maximum else "at most"
        bounds = [f"{low} {self.minimum:,}"] if self.minimum > -math.inf else []
        bounds += [f"{high} {self.maximum:,}"] if self.maximum < math.inf else []
        return " and ".join(bounds) or "finite"


def check_field_ranges(config: object, prefix: str = "") -> None:
    """Raise ValueError for the first field outside its range; `prefix`: its table in a recipe."""
    kind: Hashable = type(config)  # type: ignore[assignment]  # mypy: no class is hashable
    for name, (allowed, is_integer) in _field_ranges(kind).items():
        key = f"{prefix}.{name}" if prefix else name
        check_number(key, getattr(config, name), allowed, is_integer)


def check_number(key: str, value: Any, allowed: Range, is_integer: bool = True) -> None:
    """Raise ValueError, naming the key, unless the value is None or such a number."""
    if value is None:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{key} is {value!r}; it must be a number.")
    if value not in allowed:
        expected = allowed if abs(value) <= MAX_FLOAT else "finite"
        text = str(value)
        text = text if len(text) <= 30 else f"{text[:12]}… ({len(text)} digits)"
        raise ValueError(f"{key} is {text}; it must be {expected}.")
    if is_integer and not isinstance(value, Integral):
        raise ValueError(f"{key} is {value}; it must be a whole number.")


@cache
def _field_ranges(kind: Hashable) -> dict[str, tuple[Range, bool]]:
    """Return the range of each field that has one, and whether the field is an integer."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: (item, get_args(hint)[0] in (int, int | None))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for item in get_args(hint)[1:]
        if isinstance(item, Range)
    }


def reject_unused(config: object, prefix: str, names: Sequence[str], reason: str) -> None:
    """Raise ValueError for the first of these fields that is not its default.

    `prefix` precedes the field's name, such as "train."; `reason` is why it has no effect.
    """
    assert is_dataclass(config)
    unknown = set(names) - {field.name for field in fields(config)}
    assert not unknown, unknown  # a field that was renamed would be accepted without effect
    for field in fields(config):
        # an empty value is not set: JSON has a list for an empty tuple
        value = getattr(config, field.name) or field.default
        if field.name in names and field.default is not MISSING and value != field.default:
            raise ValueError(
                f"{prefix}{field.name} is {value!r}, but has no effect where {reason}; leave it "
                f"out, or change the other."
            )
