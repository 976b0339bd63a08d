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
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin

MAX_FLOAT = sys.float_info.max


class ConflictingValuesError(ValueError):
    """The same fact is stated twice, with different values."""


def require_agreement(fact: str, values_by_place: Mapping[str, Any]) -> Any:
    """Return the value that all places state, or None if no place states one (None).

    Readers differ in which statement they use, so a file that contradicts itself would be a
    different model for each of them. Raises ConflictingValuesError, naming two places and values.
    """
    stated = [(place, value) for place, value in values_by_place.items() if value is not None]
    for place, value in stated:
        first, expected = stated[0]
        if value != expected:
            raise ConflictingValuesError(
                f"{fact} is stated twice, and differently: {first} is {expected!r}, and {place} is "
                f"{value!r}; correct the one that is wrong."
            )
    return stated[0][1] if stated else None


@dataclass(frozen=True)
class Range:
    """The numbers from `minimum` to `maximum`, both included unless marked as exclusive."""

    minimum: float = -math.inf
    maximum: float = math.inf
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False


THREAD_RANGE = Range(0, 1_024)  # CPU threads; 0: one per core


def check_field_ranges(config: object, table: str = "") -> None:
    """Raise ValueError for the first field outside its range; `table`: its place in a recipe."""
    assert is_dataclass(config)
    for field in fields(config):
        if get_origin(field.type) is Annotated:
            kind, *marks = get_args(field.type)
            for allowed in marks:
                if isinstance(allowed, Range):
                    key = f"{table}.{field.name}" if table else field.name
                    is_integer = kind in (int, int | None)
                    check_number(key, getattr(config, field.name), allowed, is_integer)


def check_number(key: str, value: Any, allowed: Range, is_integer: bool = True) -> None:
    """Raise ValueError, naming the key, unless the value is None or such a number."""
    if value is None:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{key} is {value!r}; it must be a number.")
    minimum, maximum = allowed.minimum, allowed.maximum
    is_low = value <= minimum if allowed.exclusive_minimum else value < minimum
    is_high = value >= maximum if allowed.exclusive_maximum else value > maximum
    is_finite = abs(value) <= MAX_FLOAT  # NaN is not
    if is_low or is_high or not is_finite:
        low = "more than" if allowed.exclusive_minimum else "at least"
        high = "less than" if allowed.exclusive_maximum else "at most"
        bounds = [f"{low} {minimum:,}"] if minimum > -math.inf else []
        bounds += [f"{high} {maximum:,}"] if maximum < math.inf else []
        expected = " and ".join(bounds) if is_finite else "finite"
        text = str(value)
        text = text if len(text) <= 30 else f"{text[:12]}… ({len(text)} digits)"
        raise ValueError(f"{key} is {text}; it must be {expected}.")
    if is_integer and not isinstance(value, Integral):
        raise ValueError(f"{key} is {value}; it must be a whole number.")


def reject_unused(config: object, table: str, names: Sequence[str], reason: str) -> None:
    """Raise ValueError for the first of these fields that is not its default.

    `table` is the config's place in a recipe; `reason` is why the fields have no effect.
    """
    assert is_dataclass(config)
    by_name = {field.name: field for field in fields(config)}
    for name in names:
        # an empty value is not set: JSON has a list for an empty tuple
        default = by_name[name].default
        value = getattr(config, name) or default
        if default is not MISSING and value != default:
            raise ValueError(
                f"{table}.{name} is {value!r}, but has no effect where {reason}; leave it out, or "
                f"change the other."
            )
