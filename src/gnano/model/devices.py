"""The device that a name stands for, for training and for writing, and what some devices lack.

Can `torch.compile` work here? What it needs, looked for and not tried: trying takes seconds.

On a CPU it writes C++ that includes Python's own header; on a GPU it writes Triton, whose
launcher is C.

Why is a CPU's training step slower than its sums? Memory that comes and goes.

The C library hands a large block back to the kernel as soon as it is freed, and the next one
comes as pages of zeros, each fetched by a fault when first touched: some 60,000 faults in a
step of the shape `10m`, which writes the same few blocks in every step.
"""

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
NO_FUSED_ADAMW_SCALING = frozenset({"mps"})  # the kernel ignores `grad_scale` and `found_inf`


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums over many values are kept on a device."""
    return torch.float32 if device.type in NO_FP64 else torch.float64


def resolve_device(name: str) -> str:
    """The device of this name, auto being a GPU if there is one; ValueError where there is none."""
    there = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if there else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        kind = None
    if kind is None or kind.type not in DEVICE_TYPES:
        raise ValueError(f"There is no device {name!r}: cpu, cuda, cuda:1 …, mps or auto.")
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if there else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[kind.type]
    if (kind.index or 0) >= found:
        raise ValueError(f"There is no device {name!r} here; leave it out, or use cpu.")
    return name


def compile_unsupported_reason(device: torch.device) -> str | None:
    """Why `GPT.compile_blocks` cannot work on this device, in a sentence; None where it can."""
    if device.type == "mps":
        return "torch.compile is not used on Apple's GPUs (mps), where it was never tried."
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "torch.compile needs Triton on a GPU; it is not installed."
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
                f"they come with the package python3-dev."
            )
    if not any(name and shutil.which(name) for name in compilers):
        return (
            f"torch.compile needs a {language} compiler on {device.type}, and "
            f"none of {', '.join(filter(None, compilers))} is on the PATH."
        )
    return None


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def disable_malloc_trim() -> bool:
    """Let this process keep what it frees, for its next allocation; False where it cannot.

    The process then holds its peak until it ends. Only glibc can be asked for this.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return False
    # blocks up to 1 GiB from the heap, and nothing of the heap's end given back
    return bool(libc.mallopt(M_MMAP_THRESHOLD, 2**30) and libc.mallopt(M_TRIM_THRESHOLD, -1))
