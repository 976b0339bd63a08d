"""Advisory file locks: taken without waiting, released by the kernel when the process ends."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"
_BUSY = {errno.EWOULDBLOCK, errno.EACCES}
# file systems without locks (some network ones): work continues without this protection
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder; raise ValueError if another `gnano prepare` has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another `gnano prepare` is running in {folder}; wait for it, or choose another "
                f"folder (--data.folder)."
            ) from None
        yield


def try_lock(file: int, mode: int) -> None:
    """Lock a descriptor with fcntl.LOCK_EX or LOCK_SH; BlockingIOError where another has it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise BlockingIOError(*error.args) from None
        if error.errno not in _UNSUPPORTED:
            raise
