"""Muon: each matrix moves along the orthogonal matrix nearest to its momentum.

Every direction on which the gradients agree then gets a step of the same size, not only the few
that dominate (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    gradient ─▶ Nesterov momentum ─▶ orthogonalize ─▶ × 0.2·√(longer side) ─▶ step

The factor gives the update the root mean square of AdamW's, so both use the same learning rate and
weight decay (Liu et al. 2025, https://arxiv.org/abs/2502.16982). The decay is cautious: it only
shrinks what the update also shrinks (https://arxiv.org/abs/2510.12402), and it fades to zero by the
end of the run.

Orthogonalization needs matrix products only. An odd polynomial of a matrix X = U S Vᵀ acts on its
singular values and leaves U and V unchanged:

    a X + b (X Xᵀ) X + c (X Xᵀ)² X  =  U (a S + b S³ + c S⁵) Vᵀ

A few of them in a row bring every singular value in [0.001, 1] close to 1. The coefficients are
those of Polar Express (Amsel et al. 2025, https://arxiv.org/abs/2505.16932, algorithm 1), the best
composition for that interval; they replace the fixed ones of Newton–Schulz.

The ranks share the work in equal parts. Replicated matrices (DDP): each rank has all of them,
orthogonalizes its part, and all ranks get the results

    rank 0   A B C D ── orthogonalize A B ──┐
    rank 1   A B C D ── orthogonalize C D ──┴─ all-gather ─▶ A B C D

Matrices sharded by rows (FSDP2): the shards travel to the rank that works on them, and back

    rank 0   a₀ b₀ c₀ d₀ ─┐ all-to-all ┌─ A B, done ─┐ all-to-all ┌─ a₀ b₀ c₀ d₀
    rank 1   a₁ b₁ c₁ d₁ ─┘            └─ C D, done ─┘            └─ a₁ b₁ c₁ d₁

With HSDP each group of shards does this by itself: dividing the work between groups would cost as
much in communication between machines as it saves.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from math import sqrt

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.distributed.parallel import to_local

ADAMW_UPDATE_RMS = 0.2  # root mean square of AdamW's updates, measured by Moonlight
BATCH_ELEMENTS = 2**26  # elements of a batch of matrices per rank: 256 MiB in fp32
MatrixFn = Callable[[Tensor], Tensor]  # [N, R, C] -> the same shape, each matrix independently

POLAR_EXPRESS_COEFFICIENTS = (
    (8.287212, -23.595887, 17.300387),
    (4.107059, -2.947850, 0.544843),
    (3.948691, -2.908902, 0.551819),
    (3.318420, -2.488488, 0.510049),
    (2.300652, -1.668904, 0.418807),
    (1.891301, -1.267996, 0.376804),
    (1.875001, -1.250002, 0.375000),
    (1.875, -1.25, 0.375),
)
# all polynomials but the last allow for values slightly above 1, to which bf16 may round
SAFETY_FACTOR = 1.01


class Muon:
    """The optimizer of some matrices, by name, with their momentum."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, model: GPT
    ) -> None:
        self.parameters, self.config, self.model = parameters, config, model
        self.momentum = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}
        shapes: dict[torch.Size, list[str]] = defaultdict(list)
        for name, parameter in parameters.items():
            shapes[parameter.shape].append(name)
        self.batches: list[list[str]] = []  # matrices of one shape that are processed together
        for names in shapes.values():
            like = parameters[names[0]]
            group = _process_group(like)
            ranks = group.size() if group else 1
            fit = BATCH_ELEMENTS // max(1, to_local(like).numel())
            size = max(1, fit // ranks) * ranks  # a multiple: every rank gets the same number
            self.batches += [names[i : i + size] for i in range(0, len(names), size)]

        # compiled, a matrix is read and written once instead of some ten times
        is_compiled = model.is_compiled and any(p.is_cuda for p in parameters.values())
        wrap = torch.compile if is_compiled else lambda function: function
        self.update_momentum = wrap(_update_momentum)
        self.apply_updates = wrap(_apply_updates)

    @torch.no_grad()
    def step(
        self,
        lr: float,
        remaining: float,
        grad_divisor: Tensor | None = None,
        skip_step: Tensor | None = None,
    ) -> None:
        """Update the weights and the momentum as `Optimizer.step` does."""
        device = next(iter(self.parameters.values())).device
        divisor = torch.ones((), device=device) if grad_divisor is None else grad_divisor
        skip = torch.zeros((), device=device) if skip_step is None else skip_step
        # tensors: numbers that change would be compiled again
        rates = torch.tensor(lr), torch.tensor(self.config.weight_decay * remaining)
        finish_previous = None  # its results travel between the ranks meanwhile
        for names in self.batches:
            finish = self._start_batch(names, divisor, skip, rates)
            if finish_previous:
                finish_previous()
            finish_previous = finish
        if finish_previous:
            finish_previous()

    def _start_batch(
        self, names: list[str], divisor: Tensor, skip: Tensor, rates: tuple[Tensor, Tensor]
    ) -> Callable[[], None]:
        """Update the momentum, and start to compute the updates; return what applies them."""
        parameters = [self.parameters[name] for name in names]
        like = parameters[0]
        grads = [to_local(p.grad) for p in parameters if p.grad is not None]
        assert len(grads) == len(names), "a matrix of a layer has no gradient"
        momentum = [to_local(self.momentum[name]) for name in names]
        # bf16 if the model computes in bf16: it is fast there, and precise enough
        in_bf16 = self.model.compute_dtype is torch.bfloat16
        dtype = torch.bfloat16 if in_bf16 else grads[0].dtype
        update_NRC = self.update_momentum(
            grads, momentum, divisor, skip, self.config.momentum, dtype
        )
        wait = distribute_work(update_NRC, like, partial(orthogonalize, steps=self.config.ns_steps))
        size = ADAMW_UPDATE_RMS * sqrt(max(like.shape))
        weights = [to_local(parameter.detach()) for parameter in parameters]
        return lambda: self.apply_updates(weights, wait(), size, *rates, skip)


def _update_momentum(
    grads: list[Tensor],
    momentum: list[Tensor],
    divisor: Tensor,
    skip: Tensor,
    beta: float,
    dtype: torch.dtype,
) -> Tensor:
    """Update the momentum in place; return the directions [N, R, C], Nesterov's."""
    directions = []
    for grad, before in zip(grads, momentum, strict=True):
        grad = grad / divisor
        after = before.lerp(grad, 1 - beta)
        directions.append(grad.lerp(after, beta).to(dtype))
        # selected, not weighted: the gradient of a skipped step may hold NaN
        before.copy_(torch.where(skip > 0, before, after))
    return torch.stack(directions)


def _apply_updates(
    weights: list[Tensor], update_NRC: Tensor, size: float, lr: Tensor, decay: Tensor, skip: Tensor
) -> None:
    """Move the weights by lr × size × update, and shrink what the update also shrinks."""
    for weight, update in zip(weights, update_NRC.unbind(), strict=True):
        move = update.to(weight.dtype) * size
        shrink = (weight * move > 0) * decay
        weight.copy_(torch.where(skip > 0, weight, weight - lr * (move + shrink * weight)))


def orthogonalize(x_NRC: Tensor, steps: int = 5) -> Tensor:
    """Return N matrices [R, C] with singular values of about 1, in the dtype of `x_NRC`.

    A matrix of zeros stays zero.
    """
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.mT if tall else x_NRC  # the Gram matrix then has the size of the short side
    wide = torch.promote_types(x.dtype, torch.float32)
    norm_N11 = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide)
    # the largest singular value is at most the norm; 2 % more, because bf16 rounds the norm too
    x = x / (norm_N11 * 1.02).clamp_min(1e-30).to(x.dtype)
    for number, (a, b, c) in enumerate(POLAR_EXPRESS_COEFFICIENTS[:steps]):
        if number < len(POLAR_EXPRESS_COEFFICIENTS) - 1:
            a, b, c = a / SAFETY_FACTOR, b / SAFETY_FACTOR**3, c / SAFETY_FACTOR**5
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def distribute_work(x_NRC: Tensor, like: Tensor, fn: MatrixFn) -> Callable[[], Tensor]:
    """Start to apply `fn` to N matrices, of which `x_NRC` is this rank's part, sharded like `like`.

    Returns a function that returns the same part of the results. All ranks must call both together.
    """
    group = _process_group(like)
    if group is None:
        result = fn(x_NRC)
        return lambda: result
    if isinstance(like, DTensor):
        return _run_all_to_all(x_NRC, like.shape[0], fn, group)
    N, R, C = x_NRC.shape
    share = -(-N // group.size())
    mine = x_NRC[group.rank() * share : (group.rank() + 1) * share]
    done = x_NRC.new_zeros(share, R, C)
    if len(mine):
        done[: len(mine)] = fn(mine)
    shares = x_NRC.new_empty(group.size(), share, R, C)
    gathering = dist.all_gather(list(shares), done, group=group, async_op=True)

    def wait() -> Tensor:
        gathering.wait()
        return shares.flatten(0, 1)[:N]

    return wait


def _process_group(like: Tensor) -> dist.ProcessGroup | None:
    """Return the ranks that share the work; None if there is only this one."""
    group: dist.ProcessGroup | None = None
    if isinstance(like, DTensor):
        sharded = [n for n, place in enumerate(like.placements) if isinstance(place, Shard)]
        assert len(sharded) == 1 and like.placements[sharded[0]] == Shard(0), like.placements
        group = like.device_mesh.get_group(sharded[0])
    elif dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    return group if group is not None and group.size() > 1 else None


def _run_all_to_all(
    x_NrC: Tensor, R: int, fn: MatrixFn, group: dist.ProcessGroup
) -> Callable[[], Tensor]:
    N, r, C = x_NrC.shape
    rank = group.rank()
    counts = _shard_sizes(N, group.size())  # matrices per rank to work on
    rows = _shard_sizes(R, group.size())  # rows of every matrix per rank
    assert r == rows[rank], f"{r} rows on this rank, {rows[rank]} by FSDP2's rule"
    held = [count * r * C for count in counts]
    worked = [counts[rank] * n * C for n in rows]

    received = x_NrC.new_empty(sum(worked))
    dist.all_to_all_single(received, x_NrC.flatten(), worked, held, group)
    parts = [part.view(counts[rank], -1, C) for part in torch.split(received, worked) if len(part)]
    if parts:
        done = torch.split(fn(torch.cat(parts, dim=1)), rows, dim=1)
        received = torch.cat([part.flatten() for part in done])
    returned = x_NrC.new_empty(sum(held))
    sending = dist.all_to_all_single(returned, received, held, worked, group, async_op=True)

    def wait() -> Tensor:
        sending.wait()
        return returned.view(N, r, C)

    return wait


def _shard_sizes(total: int, ranks: int) -> list[int]:
    """Return the rows of each rank as FSDP2 splits them; the last ranks have fewer or none."""
    part = -(-total // ranks)
    edges = [min(number * part, total) for number in range(ranks + 1)]
    return [end - start for start, end in pairwise(edges)]
