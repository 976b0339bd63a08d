"""The process group of a run: a single process, or as many ranks as a launcher has started.

`torchrun`, `accelerate launch` and cluster scripts describe each process in its environment: RANK
of WORLD_SIZE, LOCAL_RANK on its machine, and the rendezvous address (MASTER_ADDR, MASTER_PORT). A
single process has no group, and its collectives return immediately:

    with DistContext.init("cuda", timeout=1_800) as world:
        world.set_phase("step 12")                  # over 1,800 s in it: reported, all ranks end
        recipe = world.run_on_main(lambda: resolve(…))   # rank 0 runs it, all get the result
        world.all_reduce_sum(metrics)                    # in place, over all ranks
"""

import gc
import math
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gnano.train.distributed.watchdog import (
    DEFAULT_TIMING,
    HeartbeatMonitor,
    Phase,
    Watchdog,
    WatchdogTiming,
)
from gnano.utils.platform_support import disable_malloc_trim

T = TypeVar("T")
READ_FAILURE_SECONDS = 10.0  # in which the other ranks read that rank 0 has failed
# Held until the process ends. Python releases a group without holding its lock; if DDP's own
# reference were the last, it would hold the lock and wait for gloo's threads, which may need it.
_live_groups: list[dist.ProcessGroup | None] = []


class MainRankFailed(SystemExit):
    """Ends a rank because rank 0 failed; rank 0 reports the reason."""


@dataclass
class DistContext:
    """This process among the ranks: its device, its rank, and the collectives."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    watchdog: Watchdog = field(default_factory=Watchdog, repr=False)
    store: Store | None = field(default=None, repr=False)  # the key-value store of the rendezvous
    num_shared_results: int = 0  # results that rank 0 has shared with `run_on_main`

    @classmethod
    @contextmanager
    def init(
        cls,
        device: str,
        timeout: float = 0.0,
        timing: WatchdogTiming = DEFAULT_TIMING,
        trace_folder: Path | None = None,
    ) -> Iterator["DistContext"]:
        """Yield the context in the process group that the environment describes, if there is one.

        `device` is cpu, cuda (with several ranks: the GPU of the local rank) or cuda:N. A rank that
        stays in one phase for more than `timeout` seconds (0: no limit) hangs: all ranks end with
        an error that names it, as they do if one of them fails. If they hang, each writes its last
        collectives into `trace_folder`.
        """
        torch_device = torch.device(device)
        is_cuda = torch_device.type == "cuda"
        world_size = _read_env_int("WORLD_SIZE", 1)
        if torch_device.type == "cpu":
            disable_malloc_trim()
        if is_cuda:
            # segments that grow instead of many of fixed size: less memory lost to fragmentation
            os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        if world_size > 1 and torch_device.type == "mps":
            raise ValueError(
                "Several ranks need CUDA GPUs or the CPU (train.device); on mps, train in a single "
                "process, without a launcher."
            )
        if world_size == 1:
            if is_cuda:
                torch.cuda.set_device(torch_device if torch_device.index is not None else 0)
            with closing(Watchdog(timeout, timing)) as watchdog:
                if timeout:
                    watchdog.start()
                yield cls(torch_device, watchdog=watchdog)
            return

        rank, local_rank = _read_env_int("RANK"), _read_env_int("LOCAL_RANK", 0)
        if is_cuda:
            count = torch.cuda.device_count()
            if local_rank >= count:
                raise ValueError(
                    f"Local rank {local_rank} has no GPU: this machine has {count}; start at most "
                    f"{count} ranks on it (torchrun --nproc-per-node {count})."
                )
            torch.cuda.set_device(local_rank)
            torch_device = torch.device("cuda", local_rank)
        store = next(rendezvous("env://", rank, world_size))[0]
        store = _join_group(store, rank, world_size, timeout or timedelta(days=1).total_seconds())
        monitor = HeartbeatMonitor(store, rank, world_size, timeout, timing)
        monitor.trace_folder = trace_folder
        monitor.start()
        world = cls(torch_device, rank, world_size, monitor, store)
        world.set_phase("connecting to the other ranks")
        dist.init_process_group(
            # no gloo beside NCCL, for which hosts with several networks need another setting
            "nccl" if is_cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world_size,
            # the watchdog, which names the rank that hangs and knows how long a phase may take,
            # must be first
            timeout=timedelta(days=1),
            device_id=torch_device if is_cuda else None,
        )
        _live_groups.append(dist.group.WORLD)
        monitor.hang_advice = first_collective_advice(torch_device)
        world.set_phase("the first collective", timing.first_collective_timeout)
        world.all_reduce_sum(torch.zeros((), device=torch_device)).item()
        world.set_phase("starting")
        try:
            yield world
            world.set_phase("waiting for the other ranks to end")
            dist.barrier(device_ids=[local_rank] if is_cuda else None)
        except MainRankFailed:
            raise
        except BaseException as error:
            monitor.report_failure(error)  # exits here if another rank failed first
            raise
        finally:
            monitor.close()
        dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes, prints and decides."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place and without synchronizing with a GPU."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, *values: int) -> list[int]:
        """Return the maximum of each value over all ranks; waits for the work of a GPU."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        maxima: list[int] = tensor.tolist()
        return maxima

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Copy rank 0's tensor to all ranks, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def run_on_main(self, fn: Callable[[], T]) -> T:
        """Call `fn` on rank 0 and return its result on every rank; all ranks exit if it fails."""
        if self.store is None:
            return fn()
        self.num_shared_results += 1
        key = f"result/{self.num_shared_results}"
        phase = self.watchdog.phase
        try:
            if self.is_main:
                try:
                    result = fn()
                except (ValueError, OSError):
                    self.store.set(key, pickle.dumps(None))  # type: ignore[arg-type]
                    # this process may be the store's, which must not end before all have read it
                    others = [f"{key}/{rank}" for rank in range(1, self.world_size)]
                    with suppress(DistError):
                        self.store.wait(others, timedelta(seconds=READ_FAILURE_SECONDS))
                    raise
                self.store.set(key, pickle.dumps((result,)))  # type: ignore[arg-type]
                return result
            self.watchdog.phase = phase._replace(number=math.inf)
            # not a collective, which would time out after minutes: a checkpoint may take longer
            self.store.wait([key], timedelta(days=1))
            received: tuple[T] | None = pickle.loads(self.store.get(key))
            if received is None:
                self.store.set(f"{key}/{self.rank}", "")
                raise MainRankFailed(2)
            return received[0]
        finally:  # the phase's time limit starts again
            self.watchdog.phase = phase._replace(start_time=time.monotonic())

    def set_phase(self, name: str, timeout: float | None = None) -> None:
        """Start this rank's next phase, which is reported if it hangs or dies.

        All ranks set the same phases in the same order, which shows the one that is behind.
        `timeout` replaces the run's limit for this phase, in seconds; math.inf: no limit. Cheap
        enough for every step.
        """
        watchdog = self.watchdog
        timeout = watchdog.timeout if timeout is None else timeout
        number = watchdog.phase.number + 1
        watchdog.phase = Phase(number, name, time.monotonic(), timeout)


@contextmanager
def pause_gc() -> Iterator[None]:
    """Disable automatic garbage collection; a run collects at the same steps on every rank.

    An automatic collection pauses one rank for some milliseconds at an arbitrary moment, and all
    others wait for it in the next collective operation.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _join_group(store: Store, rank: int, world_size: int, timeout: float) -> Store:
    """Return the store with a prefix of its own for the ranks that have been started together.

    Ranks that torchrun restarts get the store of those that ended, with all of their keys. So rank
    0 draws a name for the group, and answers each rank under a name that this rank has drawn.
    Raises TimeoutError if a rank has not connected within `timeout` seconds.
    """
    name, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    if rank:
        store.set(f"rank/{rank}", name)
        try:
            store.wait([f"group/{name}"], timedelta(seconds=timeout))
        except DistError:
            raise TimeoutError(f"Rank 0 has not connected within {timeout:,.0f} s.") from None
        group = store.get(f"group/{name}").decode()
        store.add(f"{group}/joined", 1)
        return PrefixStore(group, store)
    answered: set[bytes] = set()  # of them, those of ranks that ended do not join
    while store.add(f"{name}/joined", 0) < world_size - 1:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not all ranks have connected within {timeout:,.0f} s.")
        for key in (f"rank/{other}" for other in range(1, world_size)):
            if store.check([key]) and (drawn := store.get(key)) not in answered:
                store.set(f"group/{drawn.decode()}", name)
                answered.add(drawn)
        time.sleep(0.02)
    return PrefixStore(name, store)


def _read_env_int(name: str, default: int | None = None) -> int:
    value = os.environ.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value or "")
    except ValueError:
        raise ValueError(
            f"The environment variable {name} is {value!r}, which is not an integer: start several "
            f"ranks with torchrun, which sets RANK and WORLD_SIZE, or unset WORLD_SIZE."
        ) from None


def first_collective_advice(device: torch.device) -> str:
    """Return what to try if the first collective hangs.

    NCCL copies directly between two GPUs where the driver reports peer access. On machines that
    connect their GPUs by PCIe only, that is often missing or reported wrongly (an IOMMU between the
    GPUs, a virtual machine), and then the first collective never ends.
    """
    if device.type != "cuda":
        return "Check that the ranks can reach one another (MASTER_ADDR, firewalls)."
    missing = find_missing_peer_access()
    pair = f" (no peer access between GPUs {missing[0]} and {missing[1]})" if missing else ""
    return (
        f"On a machine that connects its GPUs by PCIe only{pair} the usual cause is broken peer "
        f"access: set NCCL_P2P_DISABLE=1 and start again; NCCL_DEBUG=INFO shows what NCCL tries."
    )


def find_missing_peer_access() -> tuple[int, int] | None:
    """Return two GPUs of this machine of which one cannot read the other's memory directly."""
    can_access = torch.cuda.can_device_access_peer
    for a, b in combinations(range(torch.cuda.device_count()), 2):
        if not (can_access(a, b) and can_access(b, a)):
            return a, b
    return None
