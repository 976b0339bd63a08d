"""Runs a function on several ranks: processes that start quickly and form a process group.

    on_ranks(4, function, *arguments) ─▶ [result of rank 0, …, result of rank 3]

The function must be at the top level of its module, where a new process can import it. The ranks
connect through a file, so they need no free port. `forkserver` forks from a process that has
imported PyTorch, which saves the seconds that this takes.
"""

import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

TIMEOUT = 300.0  # seconds for all ranks
forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    ["gnano.train.trainer", "gnano.reporting.run_report", "tests.chaos.faults"]
)


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the result of each rank; fail with the traceback of the first rank that failed."""
    with tempfile.TemporaryDirectory() as folder:
        receivers, processes = [], []
        for rank in range(size):
            receiver, sender = forkserver.Pipe(duplex=False)
            work = (rank, size, Path(folder, "rendezvous"), sender, function, arguments)
            processes.append(forkserver.Process(target=_run_rank, args=work, daemon=True))
            processes[-1].start()
            sender.close()  # so that the receiver gets EOFError when the process ends
            receivers.append(receiver)
        try:
            return _receive_results(receivers)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _receive_results(receivers: list[Connection]) -> list[Any]:
    deadline = time.monotonic() + TIMEOUT
    results: dict[int, Any] = {}
    while len(results) < len(receivers):
        pending = [receiver for rank, receiver in enumerate(receivers) if rank not in results]
        ready = wait(pending, timeout=max(deadline - time.monotonic(), 0))
        assert ready, f"only the ranks {sorted(results)} returned within {TIMEOUT:g} s"
        for receiver in ready:
            assert isinstance(receiver, Connection)
            rank = receivers.index(receiver)
            try:
                succeeded, result = pickle.loads(receiver.recv_bytes())
            except EOFError:
                succeeded, result = False, "the process ended without a result"
            assert succeeded, f"rank {rank} failed:\n{result}"
            results[rank] = result
    return [results[rank] for rank in range(len(receivers))]


def _run_rank(
    rank: int,
    size: int,
    rendezvous: Path,
    sender: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size
        )
        # pickled here: PyTorch would share tensors by handles that end with this process
        result = pickle.dumps((True, function(*arguments)))
        dist.barrier()
    except BaseException:
        result = pickle.dumps((False, traceback.format_exc()))
    sender.send_bytes(result)
    sender.close()
