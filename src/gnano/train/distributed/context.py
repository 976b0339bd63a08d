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

from gnano.model.devices import disable_malloc_trim
from gnano.train.distributed.heartbeat import HeartbeatMonitor
from gnano.train.distributed.watchdog import DEFAULT_TIMING, PhaseTracker, Watchdog, WatchdogTiming

T = TypeVar("T")
# Held until the process ends. Python lets go of a group without holding its lock; DDP's own
# reference, were it the last, would hold it and wait for gloo's threads, which may want it.
_live_groups: list[dist.ProcessGroup | None] = []


class MainRankFailed(SystemExit):
    """Ends a rank because rank 0 failed; rank 0 reports the reason."""


@dataclass
class DistContext:
    device: torch.device
    rank: int = 0
    world_size: int = 1
    phases: PhaseTracker = field(default_factory=PhaseTracker, repr=False)
    watchdog: Watchdog | None = field(default=None, repr=False)  # a Lifeline over several ranks
    store: Store | None = field(default=None, repr=False)  # where the ranks met
    num_shared_results: int = 0  # results that rank 0 has shared by `by_first`

    @classmethod
    def init(
        cls, device: str, timeout: float = 0.0, timing: WatchdogTiming = DEFAULT_TIMING
    ) -> "DistContext":
        """Initialize the process group that the environment describes, if it does.

        `device` is cpu, cuda (with several ranks: the one of the local rank) or cuda:N. After
        `stall` seconds in one phase (0: never) a rank is stuck: all end, and name it.
        """
        kind = torch.device(device)
        size = _read_env_int("WORLD_SIZE", 1)
        if kind.type == "cpu":
            disable_malloc_trim()
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
            progress = PhaseTracker(timeout, timing)
            return cls(kind, phases=progress, watchdog=Watchdog(progress) if timeout else None)
        rank = _read_env_int("RANK")
        if kind.type == "cuda":
            kind = _select_gpu(_read_env_int("LOCAL_RANK", 0))
        store = next(rendezvous("env://", rank, size))[0]
        progress = PhaseTracker(timeout, timing)
        lifeline = HeartbeatMonitor(store, rank, size, progress)
        progress.set_phase("meeting the other ranks")
        cuda = kind.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            device_id=kind if cuda else None,
        )
        _live_groups.append(dist.group.WORLD)
        world = cls(kind, rank, size, progress, lifeline, store=store)
        lifeline.hang_advice = first_collective_advice(kind)
        progress.set_phase("the first exchange", timing.first_collective_timeout)
        world.all_reduce_sum(torch.zeros((), device=kind)).item()
        progress.set_phase("starting")
        return world

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes, prints and decides."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place and without waiting for a GPU."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, *values: int) -> list[int]:
        """Return the largest of each value over all ranks."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [int(value) for value in tensor]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Copy rank 0's tensor to all ranks, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def run_on_main(self, fn: Callable[[], T]) -> T:
        """Call `work` on rank 0 and return its result on every rank; all exit where it fails."""
        if self.store is None:
            return fn()
        self.num_shared_results += 1
        key = f"word/{self.num_shared_results}"
        if self.is_main:
            try:
                with self.phases.exclusive_phase(is_waiting=False):
                    outcome = fn()
            except (ValueError, OSError):
                self.store.set(key, pickle.dumps(None))  # type: ignore[arg-type]
                raise
            self.store.set(key, pickle.dumps((outcome,)))  # type: ignore[arg-type]
            return outcome
        # not a collective, which would time out after minutes: a checkpoint may take longer
        with self.phases.exclusive_phase(is_waiting=True):
            self.store.wait([key], timedelta(days=1))
        result: tuple[T] | None = pickle.loads(self.store.get(key))
        if result is None:
            raise MainRankFailed(2)
        return result[0]

    def set_phase(self, phase: str, timeout: float | None = None) -> None:
        """Set this rank's current phase, which is reported if it hangs or dies.

        All ranks set the same phases in the same order, which shows the one that is behind.
        `limit` is how many seconds this phase may take instead of `stall`; math.inf: any time.
        Cheap enough for every step.
        """
        never = self.phases.timeout == math.inf
        self.phases.set_phase(phase, None if never else timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(self.watchdog, HeartbeatMonitor):
            if error is None:
                self.phases.set_phase("waiting for the others to end")
                dist.barrier()
            elif not isinstance(error, MainRankFailed):
                self.watchdog.report_failure(
                    error
                )  # does not return where another rank failed first
        if self.watchdog is not None:
            self.watchdog.close()
        if self.store is not None and error is None:
            dist.destroy_process_group()


def _read_env_int(name: str, default: int | None = None) -> int:
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


def _select_gpu(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"Local rank {local_rank} has no GPU: this machine shows {count}; start at most "
            f"{count} ranks on it (torchrun --nproc-per-node {count})."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def first_collective_advice(device: torch.device) -> str:
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
