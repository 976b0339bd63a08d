"""The device that a name stands for, for training and for writing, and what some devices lack."""

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
