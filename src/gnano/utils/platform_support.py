"""What a machine has: Linux or macOS (cores, memory, page cache), threads, devices, packages.

Both systems have the same file locks, links and signals; everything that only one of them has, or
that they report in different units, is read here. Windows is not supported.

PyTorch spreads matrix products over a team of OpenMP threads. By default a thread that has finished
spins until the others have, which saves microseconds on an idle machine. On a busy one it may
occupy the core of the thread that it waits for, and a small model becomes ten times slower. The
OpenMP libraries (libgomp in PyTorch's Linux wheels, LLVM's libomp on macOS) read the wait policy
when they are loaded, so `gnano/__init__.py` sets it before `import torch`; child processes inherit
it.
"""

import os
import shutil
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# libgomp and libomp know the first; the others are their own names for the same choice
WAIT_POLICY_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
# Windows lacks the file locks and signals that a run needs
WINDOWS_ERROR = (
    "gnano does not run on Windows itself: install WSL, the Windows Subsystem for Linux "
    "(wsl --install), and run the same command inside it."
)
DEVICE_TYPES = ("cpu", "cuda", "mps")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # where one is loaded
SHARED_MEMORY = Path("/dev/shm")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds per period, the period
NO_FP64 = frozenset({"mps"})  # Apple's GPUs
NO_FUSED_ADAMW_SCALING = frozenset({"mps"})  # it ignores `grad_scale` and `found_inf`


def available_cores() -> int:
    """Return how many cores this process may use; on macOS, all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores() -> float:
    """Return how many cores' time this process may use: fewer than it sees in some containers."""
    cores = float(available_cores())
    with suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text("utf-8").split()
        cores = min(cores, int(quota) / int(period))  # "max" is no number
    return cores


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process."""
    import resource  # not available on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def available_memory_bytes() -> int | None:
    """Return the memory that new allocations can use; None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # the limit of a container; "max" is none
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text("utf-8"))
        found.append(max(0, int((group / "memory.max").read_text("utf-8")) - used))
    return min(found, default=None)


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


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


def accumulation_dtype(device: "torch.device") -> "torch.dtype":
    """Return the dtype for sums over many values on a device."""
    import torch

    return torch.float32 if device.type in NO_FP64 else torch.float64


def resolve_device(name: str) -> str:
    """Return a device name, with auto resolved; raises ValueError for a device that is missing."""
    import torch

    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if has_cuda else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        kind = None
    if kind is None or kind.type not in DEVICE_TYPES:
        raise ValueError(f"There is no device {name!r}; use cpu, cuda, cuda:1 …, mps or auto.")
    num_devices = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if has_cuda else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[kind.type]
    if (kind.index or 0) >= num_devices:
        raise ValueError(f"There is no device {name!r} here; leave the device out, or use cpu.")
    return name


def unused_gpu_reason() -> str | None:
    """Return why PyTorch cannot use this machine's NVIDIA GPU, as a sentence; None without one."""
    import torch

    if not NVIDIA_DRIVER.exists() or torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA; install a build with it."
    return (
        f"PyTorch was built for CUDA {torch.version.cuda}, for which the driver may be too old "
        f"(nvidia-smi shows the newest CUDA that it supports), or CUDA_VISIBLE_DEVICES hides it."
    )


def compile_unsupported_reason(device: "torch.device") -> str | None:
    """Return why torch.compile cannot work on this device, as a sentence; None if it can.

    On a CPU it generates C++ that includes Python's header, on a GPU Triton, whose launcher is C.
    Their presence is checked without compiling, which would take seconds.
    """
    import torch

    if device.type == "mps":
        return "torch.compile is not used on Apple GPUs (mps), where it is untested."
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "torch.compile needs Triton on a GPU, and it is not installed."
        capability = torch.cuda.get_device_capability(device)
        if not torch.version.hip and capability < (7, 0):
            return (
                f"torch.compile needs compute capability 7.0 or later; "
                f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}."
            )
        compilers, language = [os.environ.get("CC"), "cc", "gcc", "clang"], "C"
    else:
        import sysconfig

        compilers, language = [os.environ.get("CXX"), "g++", "clang++"], "C++"
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.is_file():
            return (
                f"torch.compile needs Python's headers, and {header} is missing; "
                f"install the package python3-dev."
            )
    if not any(name and shutil.which(name) for name in compilers):
        return (
            f"torch.compile needs a {language} compiler on {device.type}, and "
            f"none of {', '.join(filter(None, compilers))} is on the PATH."
        )
    return None


def use_deterministic_kernels() -> None:
    """Use CUDA kernels that give the same bits in each run; PyTorch warns where it has none.

    To be called before the first matrix product.
    """
    import torch
    import torch._inductor.config
    import torch.utils.deterministic

    # two workspaces of 4 MB: with the default, cuBLAS chooses a kernel by what it finds free
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # not all new memory filled, which costs a write
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # no choice of a compiled kernel by its time, which differs between runs
    torch._inductor.config.deterministic = True


def disable_malloc_trim(in_threads: bool = False) -> bool:
    """Keep freed memory for the next allocation of this process; return False if unsupported.

    glibc otherwise returns large blocks to the kernel when they are freed, and the next allocation
    faults in pages of zeros: some 60,000 faults in a training step of the shape `10m`. The process
    then holds its peak memory until it ends.

    With `in_threads`, threads that start later share the heap of the main one; their own heaps are
    trimmed even so (1,000 faults in a decoding step of 8 texts of the shape `124m`). Blocks above
    32 MiB, such as weights, are then given back.
    """
    import ctypes  # `gnano --help` starts faster without it

    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return False
    if in_threads and not libc.mallopt(M_ARENA_MAX, 1):
        return False
    # allocate blocks up to a size from the heap, and never trim the heap
    largest = 2**25 if in_threads else 2**30
    return bool(libc.mallopt(M_MMAP_THRESHOLD, largest) and libc.mallopt(M_TRIM_THRESHOLD, -1))


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
