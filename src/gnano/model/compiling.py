"""Can `torch.compile` work here? What it needs, looked for and not tried: trying takes seconds.

On a CPU it writes C++ that includes Python's own header; on a GPU it writes Triton, whose
launcher is C.
"""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch


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
