"""Muon: each matrix moves along the orthogonal matrix nearest to its momentum.

Every direction that the gradients agree on is then stepped in equally far, not only the few
that dominate (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    gradient ─▶ momentum, Nesterov's ─▶ orthogonal ─▶ × 0.2·√(longer side) ─▶ step

The factor gives the update the root mean square of AdamW's, so both take the same learning rate
and decay (Liu et al. 2025, https://arxiv.org/abs/2502.16982). The decay is cautious: it only
shrinks what the update is shrinking as well (https://arxiv.org/abs/2510.12402); and it fades to
nothing by the end of the run.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from gnano.model.gpt import GPT
from gnano.train.optimizers.polar import orthogonalize
from gnano.train.optimizers.schedule import OptimizerConfig
from gnano.train.optimizers.spread import distribute_work, num_worker_ranks
from gnano.train.ranks.parallel import to_local

ADAMW_UPDATE_RMS = 0.2  # of AdamW's updates, as measured by Moonlight
BATCH_ELEMENTS = 2**26  # elements a rank holds in one batch of matrices: 256 MiB in fp32


class Muon:
    """The momentum of some matrices, by name."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, model: GPT
    ) -> None:
        self.parameters, self.config, self.model = dict(parameters), config, model
        self.momentum = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}
        self.batches = list(_batch_by_shape(self.parameters))

    @torch.no_grad()
    def step(
        self,
        lr: float,
        remaining: float = 1.0,
        grad_divisor: Tensor | None = None,
        skip_step: Tensor | None = None,
    ) -> None:
        """As `Optimizer.step`."""
        for names in self.batches:
            update = self._compute_update(names, grad_divisor, skip_step)
            weights = [to_local(self.parameters[name]) for name in names]
            w = torch.stack(weights)
            shrink = (w * update > 0) * (self.config.weight_decay * remaining)
            _copy_unless_skipped(weights, w - lr * (update + shrink * w), w, skip_step)

    def _compute_update(
        self, names: list[str], grad_divisor: Tensor | None, skip_step: Tensor | None
    ) -> Tensor:
        """What these matrices are to move by, stacked, for a learning rate of 1."""
        like = self.parameters[names[0]]
        grads = [self.parameters[name].grad for name in names]
        g = torch.stack([to_local(grad) for grad in grads if grad is not None])
        assert len(g) == len(names), "a matrix of the layers has no gradient"
        if grad_divisor is not None:
            g /= grad_divisor
        momentum = [to_local(self.momentum[name]) for name in names]
        before = torch.stack(momentum)
        m = before.lerp(g, 1 - self.config.momentum)
        _copy_unless_skipped(momentum, m, before, skip_step)
        u = g.lerp(m, self.config.momentum)
        # bf16 where the model's own products are: there it is fast, and it is enough
        narrow = self.model.compute_dtype is torch.bfloat16
        u = u.to(torch.bfloat16) if narrow else u
        o = distribute_work(u, like, partial(orthogonalize, steps=self.config.ns_steps))
        return o.to(g.dtype) * (ADAMW_UPDATE_RMS * sqrt(max(like.shape)))

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{name}/momentum": self.momentum[name] for name in self.parameters}


def _copy_unless_skipped(
    targets: list[Tensor], new: Tensor, old: Tensor, skip_step: Tensor | None
) -> None:
    if skip_step is not None:
        new = torch.where(skip_step > 0, old, new)  # chosen, not weighed: new may hold NaN
    for tensor, value in zip(targets, new, strict=True):
        tensor.copy_(value)


def _batch_by_shape(parameters: Mapping[str, nn.Parameter]) -> Iterator[list[str]]:
    """Names of matrices of one shape, as many as are worked on at once."""
    shapes: dict[torch.Size, list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        shapes[parameter.shape].append(name)
    for names in shapes.values():
        like = parameters[names[0]]
        ranks = num_worker_ranks(like)
        fit = BATCH_ELEMENTS // max(1, to_local(like).numel())
        size = max(1, fit // ranks) * ranks  # so that every rank has its share
        for start in range(0, len(names), size):
            yield names[start : start + size]
