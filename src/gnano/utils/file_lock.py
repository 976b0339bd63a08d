"""One `gnano prepare` at a time in a folder; the lock goes with the process that holds it.

Advisory locks on open files: taken without waiting, released by the kernel with the process.
"""

import errno
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


_BUSY = {errno.EWOULDBLOCK, errno.EACCES}
# file systems without locks (some network ones): work continues without this protection
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def try_lock(file: int, mode: int) -> None:
    """Lock a descriptor with fcntl.LOCK_EX or LOCK_SH; BlockingIOError where another has it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise BlockingIOError(*error.args) from None
        if error.errno not in _UNSUPPORTED:
            raise
