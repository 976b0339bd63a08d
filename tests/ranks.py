"""A function in several real processes that have met through gloo, as ranks do.

    on_ranks(4, function, *arguments) ─▶ [what rank 0 returned, …, what rank 3 returned]

The function stands at the top of its module, where a new process finds it by name. The ranks meet
in a file, so no port has to be free.
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

PATIENCE = 120.0  # seconds for all of it


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What each rank's call returned; fails with the traceback of the first that did not."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ends, processes = [], []
        for rank in range(size):
            mine, theirs = context.Pipe(duplex=False)
            work = (rank, size, Path(folder, "meeting"), theirs, function, arguments)
            processes.append(context.Process(target=_rank, args=work, daemon=True))
            processes[-1].start()
            theirs.close()  # so that its end shows here
            ends.append(mine)
        try:
            return _results(ends)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _results(ends: list[Connection]) -> list[Any]:
    deadline = time.monotonic() + PATIENCE
    results: dict[int, Any] = {}
    while len(results) < len(ends):
        waiting = [end for rank, end in enumerate(ends) if rank not in results]
        ready = wait(waiting, timeout=max(deadline - time.monotonic(), 0))
        assert ready, f"only the ranks {sorted(results)} were done in {PATIENCE:g} s"
        for end in ready:
            assert isinstance(end, Connection)
            rank = ends.index(end)
            try:
                well, outcome = pickle.loads(end.recv_bytes())
            except EOFError:
                well, outcome = False, "it ended without a word"
            assert well, f"rank {rank} failed:\n{outcome}"
            results[rank] = outcome
    return [results[rank] for rank in range(len(ends))]


def _rank(
    rank: int,
    size: int,
    meeting: Path,
    answer: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
        # pickled here: torch's own way of sending tensors needs this process to live on
        outcome = pickle.dumps((True, function(*arguments)))
        dist.barrier()
    except BaseException:
        outcome = pickle.dumps((False, traceback.format_exc()))
    answer.send_bytes(outcome)
    answer.close()
