"""How does a folder for others appear? Whole or not at all, and never where something is."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnano.train.saving.hashes import sync


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to fill; it is forced to disk and becomes `out` where nothing failed.

    Raises ValueError or OSError where `out` is there already, or is no place for it.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} is there already: name a folder that does not exist yet.")
    parent = out.resolve().parent
    if parent.name == "checkpoints" and (parent.parent / "recipe.toml").is_file():
        raise ValueError(f"{out} would stand among a run's checkpoints: name another place.")
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
