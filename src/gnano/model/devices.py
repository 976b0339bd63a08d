"""Devices: resolving names, what they support, and memory settings of the process."""

import ctypes
import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

DEVICE_TYPES = ("cpu", "cuda", "mps")
NO_FP64 = frozenset({"mps"})  # Apple's GPUs
NO_FUSED_ADAMW_SCALING = frozenset({"mps"})  # it ignores `grad_scale` and `found_inf`


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums over many values on a device."""
    return torch.float32 if device.type in NO_FP64 else torch.float64


def resolve_device(name: str) -> str:
    """Return a device name, with auto resolved; raises ValueError for a device that is missing."""
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


def compile_unsupported_reason(device: torch.device) -> str | None:
    """Return why torch.compile cannot work on this device, as a sentence; None if it can.

    On a CPU it generates C++ that includes Python's header, on a GPU Triton, whose launcher is C.
    Their presence is checked without compiling, which would take seconds.
    """
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


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def disable_malloc_trim() -> bool:
    """Keep freed memory for the next allocation of this process; return False if unsupported.

    glibc otherwise returns large blocks to the kernel when they are freed, and the next allocation
    faults in pages of zeros: some 60,000 faults in a training step of the shape `10m`. The process
    then holds its peak memory until it ends.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return False
    # allocate blocks up to 1 GiB from the heap, and never trim the heap
    return bool(libc.mallopt(M_MMAP_THRESHOLD, 2**30) and libc.mallopt(M_TRIM_THRESHOLD, -1))
