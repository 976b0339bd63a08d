"""Can the GPUs of this machine reach one another?

NCCL copies straight between two GPUs where the driver says that they can. On boxes whose GPUs
are joined by PCIe alone that is often not so, or said and not true (an IOMMU between them, a
virtual machine), and then the very first exchange never ends.
"""

from collections.abc import Callable

import torch

FIRST_EXCHANGE = 120.0  # seconds for a sum of one number over all ranks, NCCL's start included


def advice(device: torch.device) -> str:
    """What to try where the first exchange does not end."""
    if device.type != "cuda":
        return "Check that the ranks can reach one another (MASTER_ADDR, firewalls)."
    pairs = unreachable(torch.cuda.device_count(), torch.cuda.can_device_access_peer)
    seen = f" (no peer access between GPUs {pairs[0][0]} and {pairs[0][1]})" if pairs else ""
    return (
        f"On a box that joins its GPUs by PCIe alone{seen} this is mostly peer access that does "
        f"not work: set NCCL_P2P_DISABLE=1 and start again; NCCL_DEBUG=INFO shows what it tries."
    )


def unreachable(count: int, can_access: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Pairs of GPUs of which one cannot read the other's memory."""
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return [(a, b) for a, b in pairs if not (can_access(a, b) and can_access(b, a))]
