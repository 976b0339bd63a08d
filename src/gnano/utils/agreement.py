"""Facts that are stated in several places: read where all statements agree, refused where not.

    theta = agreed("RoPE's base", {"rope_theta": 1e4, "rope_parameters.rope_theta": 5e5})  # raises

Readers differ in which statement they believe, so a file that disagrees with itself is another
model for each of them.
"""

from collections.abc import Mapping
from typing import Any


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
