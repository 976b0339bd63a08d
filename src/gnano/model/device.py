"""Which device is meant? Every command's `device` is read here, for training and for writing."""

import torch

KINDS = ("cpu", "cuda", "mps")


def device_called(name: str) -> str:
    """The device of this name, auto being a GPU if there is one; ValueError where there is none."""
    there = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if there else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        kind = None
    if kind is None or kind.type not in KINDS:
        raise ValueError(f"There is no device {name!r}: cpu, cuda, cuda:1 …, mps or auto.")
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if there else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[kind.type]
    if (kind.index or 0) >= found:
        raise ValueError(f"There is no device {name!r} here; leave it out, or use cpu.")
    return name
