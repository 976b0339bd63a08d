"""What a machine has: Linux or macOS (cores, memory, page cache), threads, optional packages.

Both systems have the same file locks, links and signals; everything that only one of them has, or
that they report in different units, is read here. Windows is not supported.

PyTorch spreads matrix products over a team of OpenMP threads. By default a thread that has finished
spins until the others have, which saves microseconds on an idle machine. On a busy one it may
occupy the core of the thread that it waits for, and a small model becomes ten times slower. The
OpenMP libraries (libgomp in PyTorch's Linux wheels, LLVM's libomp on macOS) read the wait policy
when they are loaded, so it is set before `import torch` and inherited by child processes.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# libgomp and libomp know the first; the others are their own names for the same choice
WAIT_POLICY_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def reject_windows() -> None:
    """Raise OSError on Windows, which lacks the file locks and signals that a run needs."""
    if sys.platform == "win32":
        raise OSError(
            "gnano does not run on Windows itself: install WSL, the Windows Subsystem for Linux "
            "(wsl --install), and run the same command inside it."
        )


def available_cores() -> int:
    """Return how many cores this process may use; on macOS, all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process."""
    import resource  # not available on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def drop_from_page_cache(path: Path) -> None:
    """Make the next read of a file come from the disk, where the system supports it."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_running(pid: int) -> bool:
    """Return whether a process runs on this machine; zombies are recognized on Linux only."""
    try:
        os.kill(pid, 0)
        if Path("/proc/self/stat").exists():
            status = Path(f"/proc/{pid}/stat").read_bytes()  # the process name may be any bytes
            return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except PermissionError:  # it belongs to another user
        return True
    except OSError:
        return False
    return True


def set_passive_wait() -> None:
    """Let idle OpenMP threads sleep, unless the user has set how they wait."""
    if not any(name in os.environ for name in WAIT_POLICY_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # no origin: only a folder of that name


def require(package: str, extra: str, problem: str, otherwise: str = "") -> None:
    """Raise ValueError unless the package is installed: the problem, and how to install it.

    >>> require("gguf", "gguf", "GGUF files need the package gguf")
    """
    if not is_installed(package):
        raise ValueError(f"{problem}: pip install 'auto-g-nano[{extra}]'{otherwise}.")
