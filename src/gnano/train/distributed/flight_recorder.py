"""Writes the last collectives of a rank into its run's folder, for a run that hangs.

PyTorch records them in memory, the last 2,000 with their sizes and states (`TORCH_FR_BUFFER_SIZE`).
Its `torchfrtrace` compares the files of all ranks, if they use NCCL, and names the collective in
which they differ.
"""

import threading
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

TRACE_DIR = "flight-recorder"  # in a run's folder


def save_collectives(folder: Path, rank: int, timeout: float) -> str:
    """Write them into a file of the folder, and return a sentence on it; "" if that fails.

    A disk that hangs, perhaps the cause, is given up after `timeout` seconds.
    """
    path = folder / f"rank_{rank}"  # the names that torchfrtrace expects
    thread = threading.Thread(target=_write, args=(path,), daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive() or not path.exists():
        return ""
    return f" {path} has its last collectives (`torchfrtrace {folder}` compares those of NCCL)."


def _write(path: Path) -> None:
    from torch._C import _distributed_c10d as c10d  # not in every build of PyTorch

    dump = getattr(c10d, f"_dump_{'nccl' if dist.get_backend() == 'nccl' else 'fr'}_trace")
    with suppress(OSError, RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier hang
        # finding the names of all stacks takes seconds; those of hung ranks are printed
        path.write_bytes(dump(includeStackTraces=False))
