"""Distributes work on whole matrices over the ranks, in equal shares.

replicated (DDP): each rank has all matrices, works on its share, and all get the results

    rank 0   A B C D ── works on A B ──┐
    rank 1   A B C D ── works on C D ──┴─ all-gather ─▶ A B C D

sharded by rows (FSDP2): the shares travel to their rank, and back

    rank 0   a₀ b₀ c₀ d₀ ─┐ all-to-all ┌─ A B, worked on ─┐ all-to-all ┌─ a₀ b₀ c₀ d₀
    rank 1   a₁ b₁ c₁ d₁ ─┘            └─ C D, worked on ─┘            └─ a₁ b₁ c₁ d₁

With HSDP each group of shards does this on its own: dividing the work between groups would cost as
much in exchanges between machines as it saves.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

MatrixFn = Callable[[Tensor], Tensor]  # [N, R, C] -> the same shape; each matrix for itself


def num_worker_ranks(parameter: Tensor) -> int:
    """Return over how many ranks `spread` distributes matrices sharded like this parameter."""
    group = _process_group(parameter)
    return 1 if group is None else group.size()


def distribute_work(x_NRC: Tensor, like: Tensor, fn: MatrixFn) -> Tensor:
    """Apply `work` to N matrices, of which `x_NRC` is this rank's part, sharded like `like`.

    Returns the same part of the results. All ranks call this together.
    """
    group = _process_group(like)
    if group is None:
        return fn(x_NRC)
    if isinstance(like, DTensor):
        return _run_all_to_all(x_NRC, like.shape[0], fn, group)
    return _run_all_gather(x_NRC, fn, group)


def _process_group(like: Tensor) -> dist.ProcessGroup | None:
    """Return the ranks that share the work, None for this one alone."""
    group: dist.ProcessGroup | None = None
    if isinstance(like, DTensor):
        sharded = [n for n, place in enumerate(like.placements) if isinstance(place, Shard)]
        assert len(sharded) == 1 and like.placements[sharded[0]] == Shard(0), like.placements
        group = like.device_mesh.get_group(sharded[0])
    elif dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    return group if group is not None and group.size() > 1 else None


def _run_all_gather(x_NRC: Tensor, fn: MatrixFn, group: dist.ProcessGroup) -> Tensor:
    N, R, C = x_NRC.shape
    share = -(-N // group.size())
    mine = x_NRC[group.rank() * share : (group.rank() + 1) * share]
    done = x_NRC.new_zeros(share, R, C)
    if len(mine):
        done[: len(mine)] = fn(mine)
    shares = x_NRC.new_empty(group.size(), share, R, C)
    dist.all_gather(list(shares), done, group=group)
    return shares.flatten(0, 1)[:N]


def _run_all_to_all(x_NrC: Tensor, R: int, fn: MatrixFn, group: dist.ProcessGroup) -> Tensor:
    N, r, C = x_NrC.shape
    me = group.rank()
    counts = _shard_sizes(N, group.size())  # matrices that each rank works on
    rows = _shard_sizes(R, group.size())  # rows of every matrix that each rank holds
    assert r == rows[me], f"{r} rows here, {rows[me]} by FSDP2's rule"
    held = [count * r * C for count in counts]
    worked = [counts[me] * of * C for of in rows]

    received = x_NrC.new_empty(sum(worked))
    dist.all_to_all_single(received, x_NrC.flatten(), worked, held, group)
    parts = [part.view(counts[me], -1, C) for part in torch.split(received, worked) if len(part)]
    if parts:
        done = torch.split(fn(torch.cat(parts, dim=1)), rows, dim=1)
        received = torch.cat([part.flatten() for part in done])
    returned = x_NrC.new_empty(sum(held))
    dist.all_to_all_single(returned, received, held, worked, group)
    return returned.view(N, r, C)


def _shard_sizes(total: int, ranks: int) -> list[int]:
    """Return the rows of each rank as FSDP2 splits them, the last ones less or none."""
    part = -(-total // ranks)
    edges = [min(number * part, total) for number in range(ranks + 1)]
    return [end - start for start, end in pairwise(edges)]
