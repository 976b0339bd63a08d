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
from gnano.train.optimizers.spread import ranks_for, spread
from gnano.train.ranks.parallel import local

RMS = 0.2  # of AdamW's updates, as measured by Moonlight
AT_ONCE = 2**26  # elements a rank holds in one batch of matrices: 256 MiB in fp32


class Muon:
    """The momentum of some matrices, by name."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, model: GPT
    ) -> None:
        self.parameters, self.config, self.model = dict(parameters), config, model
        self.momentum = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}
        self.batches = list(_batches(self.parameters))

    @torch.no_grad()
    def step(
        self,
        lr: float,
        left: float = 1.0,
        divisor: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> None:
        """As `Optimizer.step`."""
        for names in self.batches:
            update = self._update(names, divisor, skip)
            weights = [local(self.parameters[name]) for name in names]
            w = torch.stack(weights)
            shrink = (w * update > 0) * (self.config.weight_decay * left)
            _write(weights, w - lr * (update + shrink * w), w, skip)

    def _update(self, names: list[str], divisor: Tensor | None, skip: Tensor | None) -> Tensor:
        """What these matrices are to move by, stacked, for a learning rate of 1."""
        like = self.parameters[names[0]]
        grads = [self.parameters[name].grad for name in names]
        g = torch.stack([local(grad) for grad in grads if grad is not None])
        assert len(g) == len(names), "a matrix of the layers has no gradient"
        if divisor is not None:
            g /= divisor
        momentum = [local(self.momentum[name]) for name in names]
        before = torch.stack(momentum)
        m = before.lerp(g, 1 - self.config.momentum)
        _write(momentum, m, before, skip)
        u = g.lerp(m, self.config.momentum)
        # bf16 where the model's own products are: there it is fast, and it is enough
        narrow = self.model.compute_dtype is torch.bfloat16
        u = u.to(torch.bfloat16) if narrow else u
        o = spread(u, like, partial(orthogonalize, steps=self.config.polar_steps))
        return o.to(g.dtype) * (RMS * sqrt(max(like.shape)))

    def tensors(self) -> dict[str, Tensor]:
        return {f"{name}/momentum": self.momentum[name] for name in self.parameters}


def _write(into: list[Tensor], new: Tensor, old: Tensor, skip: Tensor | None) -> None:
    if skip is not None:
        new = torch.where(skip > 0, old, new)  # chosen, not weighed: new may hold NaN
    for tensor, value in zip(into, new, strict=True):
        tensor.copy_(value)


def _batches(parameters: Mapping[str, nn.Parameter]) -> Iterator[list[str]]:
    """Names of matrices of one shape, as many as are worked on at once."""
    shapes: dict[torch.Size, list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        shapes[parameter.shape].append(name)
    for names in shapes.values():
        like = parameters[names[0]]
        ranks = ranks_for(like)
        fit = AT_ONCE // max(1, local(like).numel())
        size = max(1, fit // ranks) * ranks  # so that every rank has its share
        for start in range(0, len(names), size):
            yield names[start : start + size]
