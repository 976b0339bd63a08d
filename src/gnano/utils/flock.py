"""Advisory locks on open files: taken without waiting, released by the kernel with the process."""

import errno
import fcntl

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
