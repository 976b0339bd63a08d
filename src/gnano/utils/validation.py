"""Facts that are stated in several places: read where all statements agree, refused where not.

    theta = agreed("RoPE's base", {"rope_theta": 1e4, "rope_parameters.rope_theta": 5e5})  # raises

Readers differ in which statement they believe, so a file that disagrees with itself is another
model for each of them.

Ranges of numbers in configuration dataclasses: stated in a field's type, checked in one place.

    @dataclass(frozen=True, kw_only=True)
    class Schedule:
        peak: Annotated[float, Range(0, above=True)] = 3e-4  # learning rate after warm-up
        warmup: Annotated[int, Range(0)] = 1_000  # steps

        def __post_init__(self) -> None:
            check_ranges(self, "train.schedule")

Infinity and NaN are outside every range, a `float` is outside one of an `int` field, and None is
not checked. The same check serves recipes, command lines and the Python API, since all of them
construct the dataclass.

Refuses a setting that nothing would read: what a person sets is used, or refused.
"""

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints


class ConflictingValuesError(ValueError):
    """A fact is stated twice, and differently."""


def require_agreement(fact: str, values_by_place: Mapping[str, Any]) -> Any:
    """Return the value that all statements agree on; None where there is none.

    `statements` maps each place to the value it states; None means that it states nothing.
    Raises DisagreementError, naming two places and their values, where they differ.
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


MAX_FLOAT = sys.float_info.max


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, both included unless `above` or `below` excludes them."""

    minimum: float = -math.inf
    maximum: float = math.inf
    exclusive_minimum: bool = False  # more than `least`, not `least` itself
    exclusive_maximum: bool = False  # less than `most`, not `most` itself

    def __contains__(self, value: float) -> bool:
        low = value > self.minimum if self.exclusive_minimum else value >= self.minimum
        high = value < self.maximum if self.exclusive_maximum else value <= self.maximum
        return low and high and abs(value) <= MAX_FLOAT

    def __str__(self) -> str:
        """What a value must be, as the end of a sentence: "at least 1", "more than 0 and …"."""
        bounds = []
        if self.minimum > -math.inf:
            bounds.append(
                f"{'more than' if self.exclusive_minimum else 'at least'} {self.minimum:,}"
            )
        if self.maximum < math.inf:
            bounds.append(
                f"{'less than' if self.exclusive_maximum else 'at most'} {self.maximum:,}"
            )
        return " and ".join(bounds) or "finite"


def check_field_ranges(config: object, prefix: str = "") -> None:
    """Raise ValueError, naming the key, for the first field outside the range in its annotation.

    `table` is the name of the configuration's table in a recipe, such as "train.schedule".
    """
    kind: Hashable = type(config)  # type: ignore[assignment]  # mypy holds no class for hashable
    for name, (allowed, whole) in _field_ranges(kind).items():
        check_number(f"{prefix}.{name}" if prefix else name, getattr(config, name), allowed, whole)


def check_number(key: str, value: Any, allowed: Range, is_integer: bool = True) -> None:
    """Raise ValueError, naming the key, unless the value is such a number, or None."""
    if value is None:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{key} is {value!r}; it must be a number.")
    if value not in allowed:
        wanted = allowed if abs(value) <= MAX_FLOAT else "finite"
        text = str(value)
        text = text if len(text) <= 30 else f"{text[:12]}… ({len(text)} digits)"
        raise ValueError(f"{key} is {text}; it must be {wanted}.")
    if is_integer and not isinstance(value, Integral):
        raise ValueError(f"{key} is {value}; it must be a whole number.")


@cache
def _field_ranges(kind: Hashable) -> dict[str, tuple[Range, bool]]:
    """The range of each field that has one, and whether its numbers are whole."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: (item, get_args(hint)[0] in (int, int | None))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for item in get_args(hint)[1:]
        if isinstance(item, Range)
    }


def reject_unused(config: object, prefix: str, names: Sequence[str], reason: str) -> None:
    """Raise ValueError, naming the key, for the first of these fields that is not its default.

    `table` stands before the field's name, such as "train."; `why` is the other setting because
    of which the field has no effect.
    """
    assert is_dataclass(config)
    for field in fields(config):
        # what is empty is not set: JSON has a list for an empty tuple
        value = getattr(config, field.name) or field.default
        if field.name in names and field.default is not MISSING and value != field.default:
            raise ValueError(
                f"{prefix}{field.name} is {value!r}, but has no effect where {reason}; leave it out, "
                f"or change the other."
            )
