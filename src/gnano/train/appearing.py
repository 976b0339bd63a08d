"""New files and folders for others to read: they appear complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnano.utils.atomic_io import fsync_path


@contextmanager
def create_file_atomically(out: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; without a failure it is synced and becomes `out`.

    Raises ValueError or OSError where `out` exists already, or cannot be created.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} is there already: name a place where nothing is yet.")
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_path(partial)
    try:
        yield partial
        fsync_path(partial)
        partial.rename(out)
    finally:
        _remove_path(partial)
    fsync_path(out.parent)


@contextmanager
def create_dir_atomically(out: Path) -> Iterator[Path]:
    """The same for a folder, which is there to be filled."""
    with create_file_atomically(out) as partial:
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            fsync_path(file)


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
