"""Atomic writes: a file or folder appears complete or not at all, even after a power failure.

    with atomic_replace(path) as temporary:      a hidden file in the same folder
        temporary.write_bytes(content)
    ─▶ fsync ─▶ rename over `path` ─▶ fsync of the folder

A failure leaves `path` as it was and removes the temporary file; its OSError names `path`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def create_file_atomically(out: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; on success it becomes `out`, which must not exist."""
    if os.path.lexists(out):
        raise FileExistsError(f"{out} already exists: choose an output path that does not exist.")
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
    """Yield a new, empty hidden folder that becomes `out`, as `create_file_atomically` does."""
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
    """Replace a file's content."""
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a file's content with UTF-8 text; a lone surrogate becomes "?"."""
    atomic_write_bytes(path, text.encode("utf-8", errors="replace"))


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces `path`."""
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
    """Force a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
