"""Refuses a setting that nothing would read: what a person sets is used, or refused."""

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass


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
