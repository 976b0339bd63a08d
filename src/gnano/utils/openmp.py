"""OpenMP's threads: how they wait for one another, and how many there are.

PyTorch spreads every product over a team of OpenMP threads. By default a thread that is done spins
until the others are, which gains microseconds where nothing else runs. Where anything does, the
thread it waits for may be the one whose core it occupies, and a small model becomes ten times
slower. The libraries (libgomp in PyTorch's wheels for Linux, LLVM's libomp on macOS) read the
variable when they are loaded, so it is set before `import torch` and inherited by every process
that is started from here.
"""

import os

from gnano.utils.ranges import Range

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
