"""The processes that train together: one, or as many as a launcher has started.

`torchrun`, `accelerate launch` and a cluster's scripts pass through the environment what each
process is: RANK of WORLD_SIZE, LOCAL_RANK on its machine, and where they meet (MASTER_ADDR,
MASTER_PORT). Nothing else is needed of a launcher. A single process has no group, and everything
here costs it nothing:

    with World.join("cuda", stall=1_800) as world:
        world.doing("step 12")                         # over 1,800 s in it is told, and ends all
        recipe = world.by_first(lambda: settle(…))    # rank 0 does it, all have the outcome
        world.sum(figures)                             # in place, over all ranks
"""

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gnano.model.host_memory import keep_freed_memory
from gnano.train.ranks.lifeline import Lifeline
from gnano.train.ranks.stall import TIMING, LoneWatch, Progress, Timing

T = TypeVar("T")
# Held until the process ends. Python lets go of a group without holding its lock; DDP's own
# reference, were it the last, would hold it and wait for gloo's threads, which may want it.
_groups: list[dist.ProcessGroup | None] = []


class Elsewhere(SystemExit):
    """Ends a rank because rank 0 failed; rank 0 reports the reason."""


@dataclass
class World:
    device: torch.device
    rank: int = 0
    size: int = 1
    progress: Progress = field(default_factory=Progress, repr=False)
    watch: LoneWatch | None = field(default=None, repr=False)  # a Lifeline over several ranks
    store: Store | None = field(default=None, repr=False)  # where the ranks met
    words: int = 0  # results that rank 0 has shared by `by_first`

    @classmethod
    def join(cls, device: str, stall: float = 0.0, timing: Timing = TIMING) -> "World":
        """Initialize the process group that the environment describes, if it does.

        `device` is cpu, cuda (with several ranks: the one of the local rank) or cuda:N. After
        `stall` seconds in one phase (0: never) a rank is stuck: all end, and name it.
        """
        kind = torch.device(device)
        size = _environment("WORLD_SIZE", 1)
        if kind.type == "cpu":
            keep_freed_memory()
        if kind.type == "cuda":
            # segments that grow instead of many of one size: less memory lost between tensors
            os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        if size > 1 and kind.type == "mps":
            raise ValueError(
                "Several ranks need GPUs with CUDA or a CPU (train.device); on mps train alone, "
                "without a launcher."
            )
        if size == 1:
            if kind.type == "cuda":
                torch.cuda.set_device(kind if kind.index is not None else 0)
            progress = Progress(stall, timing)
            return cls(kind, progress=progress, watch=LoneWatch(progress) if stall else None)
        rank = _environment("RANK")
        if kind.type == "cuda":
            kind = _own_gpu(_environment("LOCAL_RANK", 0))
        store = next(rendezvous("env://", rank, size))[0]
        progress = Progress(stall, timing)
        lifeline = Lifeline(store, rank, size, progress)
        progress.doing("meeting the other ranks")
        cuda = kind.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            device_id=kind if cuda else None,
        )
        _groups.append(dist.group.WORLD)
        world = cls(kind, rank, size, progress, lifeline, store=store)
        lifeline.advice = advice(kind)
        progress.doing("the first exchange", timing.first_exchange)
        world.sum(torch.zeros((), device=kind)).item()
        progress.doing("starting")
        return world

    @property
    def first(self) -> bool:
        """True on rank 0, which writes, prints and decides."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place and without waiting for a GPU."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def most(self, *values: int) -> list[int]:
        """Return the largest of each value over all ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [int(value) for value in tensor]

    def from_first(self, tensor: Tensor) -> Tensor:
        """Copy rank 0's tensor to all ranks, in place."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def by_first(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 and return its result on every rank; all exit where it fails."""
        if self.store is None:
            return work()
        self.words += 1
        key = f"word/{self.words}"
        if self.first:
            try:
                with self.progress.apart(waits=False):
                    outcome = work()
            except (ValueError, OSError):
                self.store.set(key, pickle.dumps(None))  # type: ignore[arg-type]
                raise
            self.store.set(key, pickle.dumps((outcome,)))  # type: ignore[arg-type]
            return outcome
        # not a collective, which would time out after minutes: a checkpoint may take longer
        with self.progress.apart(waits=True):
            self.store.wait([key], timedelta(days=1))
        result: tuple[T] | None = pickle.loads(self.store.get(key))
        if result is None:
            raise Elsewhere(2)
        return result[0]

    def doing(self, phase: str, limit: float | None = None) -> None:
        """Set this rank's current phase, which is reported if it hangs or dies.

        All ranks set the same phases in the same order, which shows the one that is behind.
        `limit` is how many seconds this phase may take instead of `stall`; math.inf: any time.
        Cheap enough for every step.
        """
        never = self.progress.stall == math.inf
        self.progress.doing(phase, None if never else limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(self.watch, Lifeline):
            if error is None:
                self.progress.doing("waiting for the others to end")
                dist.barrier()
            elif not isinstance(error, Elsewhere):
                self.watch.failed(error)  # does not return where another rank failed first
        if self.watch is not None:
            self.watch.close()
        if self.store is not None and error is None:
            dist.destroy_process_group()


def _environment(name: str, default: int | None = None) -> int:
    value = os.environ.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value or "")
    except ValueError:
        raise ValueError(
            f"The environment variable {name} is {value!r}, which is no whole number: start "
            f"several ranks with torchrun, which sets RANK and WORLD_SIZE, or unset WORLD_SIZE."
        ) from None


def _own_gpu(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"Local rank {local_rank} has no GPU: this machine shows {count}; start at most "
            f"{count} ranks on it (torchrun --nproc-per-node {count})."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def advice(device: torch.device) -> str:
    """Return what to try where the first exchange does not end.

    NCCL copies straight between two GPUs where the driver says that they can. On machines whose
    GPUs are joined by PCIe alone that is often not so, or reported wrongly (an IOMMU between them,
    a virtual machine), and then the first exchange never ends.
    """
    if device.type != "cuda":
        return "Check that the ranks can reach one another (MASTER_ADDR, firewalls)."
    can_access = torch.cuda.can_device_access_peer
    pair = next(
        (
            (a, b)
            for a, b in combinations(range(torch.cuda.device_count()), 2)
            if not (can_access(a, b) and can_access(b, a))
        ),
        None,
    )
    seen = f" (no peer access between GPUs {pair[0]} and {pair[1]})" if pair else ""
    return (
        f"On a box that joins its GPUs by PCIe alone{seen} this is mostly peer access that does "
        f"not work: set NCCL_P2P_DISABLE=1 and start again; NCCL_DEBUG=INFO shows what it tries."
    )
