"""Paths that people type: `~` is their home, in a recipe as on a command line."""

import os.path
from collections.abc import Sequence


def expand_path(path: str) -> str:
    """The path with a leading ~ or ~user written out; as it is where there is no such user."""
    return os.path.expanduser(path)  # noqa: PTH111  Path's raises where there is no such user


def expand_path_fields(config: object, names: Sequence[str]) -> None:
    """Write out a leading ~ in these fields, paths or lists of them, of a frozen dataclass.

    For use in its `__post_init__`. A ~ after the first letter, as in TASK=~/PATH, is left.
    """
    for name in names:
        value = getattr(config, name)
        whole = expand_path(value) if isinstance(value, str) else tuple(map(expand_path, value))
        object.__setattr__(config, name, whole)
