"""How does a folder or file for others appear? Whole or not at all, never where something is."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnano.utils.atomic_io import sync


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to fill; it is forced to disk and becomes `out` where nothing failed.

    Raises ValueError or OSError where `out` is there already, or is no place for it.
    """
    _refuse(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in [*partial.iterdir(), partial]:
            sync(file)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(out.parent)


@contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """The same for a file: a hidden place to write it to."""
    _refuse(out)
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        sync(partial)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    sync(out.parent)


def _refuse(out: Path) -> None:
    if os.path.lexists(out):
        raise FileExistsError(f"{out} is there already: name a place where nothing is yet.")
