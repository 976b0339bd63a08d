"""New files and folders for others to read: they appear complete or not at all.

Files that appear whole or not at all, even if the process is killed or the power fails.

    with replacing(path) as temporary:      a hidden file beside `path`, of this process alone
        temporary.write_bytes(content)
    ─▶ forced to disk ─▶ renamed over `path` ─▶ the folder's names forced to disk

A failure leaves `path` as it was and nothing beside it; its OSError names `path`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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


def atomic_write_bytes(path: Path, content: bytes) -> None:
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8; what it cannot hold, half a surrogate pair, becomes "?"."""
    atomic_write_bytes(path, text.encode("utf-8", errors="replace"))


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield where to write the file that then takes the place of `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(path)
    except OSError as error:
        names = {str(error.filename), str(error.filename2)}
        if error.errno is None or not ({str(temporary)} & names or error.filename is None):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    with suppress(OSError):  # some network file systems do not sync folders
        fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
