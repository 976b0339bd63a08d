"""What differs between the operating systems this runs on: processor cores, memory, page cache.

Linux and macOS have the same file locks, links and signals; what only one of them has, or counts
in another unit, is asked for here and nowhere else. Windows has none of it.

OpenMP's threads: how they wait for one another, and how many there are.

PyTorch spreads every product over a team of OpenMP threads. By default a thread that is done spins
until the others are, which gains microseconds where nothing else runs. Where anything does, the
thread it waits for may be the one whose core it occupies, and a small model becomes ten times
slower. The libraries (libgomp in PyTorch's wheels for Linux, LLVM's libomp on macOS) read the
variable when they are loaded, so it is set before `import torch` and inherited by every process
that is started from here.
"""

import os
import sys
from pathlib import Path

from gnano.utils.validation import Range


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


THREAD_RANGE = Range(0, 1_024)  # 0: one per core
# libgomp and libomp know the first; the others are their own names for the same choice
WAIT_POLICY_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def set_passive_wait() -> None:
    """Let idle threads sleep, where no variable of the user's says how they wait."""
    if not any(name in os.environ for name in WAIT_POLICY_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def set_num_threads(count: int) -> None:
    """Compute with so many threads on the CPU; 0 leaves it to PyTorch, which takes one per core."""
    if count:
        import torch

        torch.set_num_threads(count)
