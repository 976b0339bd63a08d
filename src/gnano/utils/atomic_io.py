"""Files that appear whole or not at all, even if the process is killed or the power fails.

    with replacing(path) as temporary:      a hidden file beside `path`, of this process alone
        temporary.write_bytes(content)
    ─▶ forced to disk ─▶ renamed over `path` ─▶ the folder's names forced to disk

A failure leaves `path` as it was and nothing beside it; its OSError names `path`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
