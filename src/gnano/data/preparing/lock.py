"""One `gnano prepare` at a time in a folder; the lock goes with the process that holds it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Raises ValueError if another process is preparing this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another `gnano prepare` is at work in {folder}; wait for it, or choose another "
                f"folder (--data.folder)."
            ) from None
        yield
