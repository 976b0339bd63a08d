"""Why is a CPU's training step slower than its sums? Memory that comes and goes.

The C library hands a large block back to the kernel as soon as it is freed, and the next one
comes as pages of zeros, each fetched by a fault when first touched: some 60,000 faults in a
step of the shape `10m`, which writes the same few blocks in every step.
"""

import ctypes
import sys

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
