"""What differs between the operating systems this runs on: processor cores, memory, page cache.

Linux and macOS have the same file locks, links and signals; what only one of them has, or counts
in another unit, is asked for here and nowhere else. Windows has none of it.
"""

import os
import sys
from pathlib import Path


def reject_windows() -> None:
    """Raise OSError on Windows, which lacks the file locks and signals that a run rests on."""
    if sys.platform == "win32":
        raise OSError(
            "gnano does not run on Windows itself: install WSL, the Windows Subsystem for Linux "
            "(wsl --install), and run the same command inside it."
        )


def available_cores() -> int:
    """Return how many cores this process may use: on macOS, which does not tell, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had resident."""
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def drop_from_page_cache(path: Path) -> None:
    """Let the next read of a file come from the disk, where the system can be asked for that."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_running(pid: int) -> bool:
    """Return whether a process of this machine runs; one that has ended but still has its number
    is told apart on Linux alone.
    """
    try:
        os.kill(pid, 0)
        if Path("/proc/self/stat").exists():
            status = Path(f"/proc/{pid}/stat").read_bytes()  # with a name of whatever bytes
            return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except PermissionError:  # somebody else's
        return True
    except OSError:
        return False
    return True
