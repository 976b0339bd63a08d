"""One training step: from micro-batches to new weights, without waiting for the device.

    micro-batches ─▶ loss ─▶ backward, summed in .grad ─▶ Σ over all ranks ─▶ optimizer
                                                          loss, tokens, grad², stop

What the gradients have to be divided by (the tokens that count in the whole step, the clip,
the loss scale of fp16) is one number on the device that goes into the optimizer's kernel, and
so is whether the step is to be skipped: not finite, or a spike. The four sums are all that a step
tells, in a single exchange; they are read a step late, when the device is busy with the next.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gnano.data.any_batch import AnyBatch
from gnano.model.devices import widest_dtype
from gnano.train.optimizers.optimizer import Optimizer
from gnano.train.optimizers.scaling import LossScale
from gnano.train.ranks.parallel import Placed, local
from gnano.train.ranks.world import World
from gnano.train.spikes import Spikes
from gnano.train.stopping import CutShortError

FIGURES = ("loss", "grad_norm", "skipped", "stop")  # what a step tells, in this order
NOT_FINITE, SPIKE = 1, 2  # why a step was skipped


class Step:
    """`tokens` is the number a step is expected to count, `clip` the largest gradient norm."""

    def __init__(
        self,
        placed: Placed,
        optimizer: Optimizer,
        world: World,
        *,
        tokens: int,
        clip: float,
        scale: LossScale | None = None,
        spikes: Spikes | None = None,
    ) -> None:
        self.placed, self.optimizer, self.world = placed, optimizer, world
        self.tokens, self.clip, self.scale, self.spikes = tokens, clip, scale, spikes

    def run(
        self,
        micros: Sequence[AnyBatch],
        lr: float,
        left: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """The figures [4] of this step over all ranks, on the device, in its widest dtype.

        `micros` are this rank's micro-batches, on its device. The loss is the mean in nats over
        all targets that count, the norm that of its gradient before clipping; a step whose
        loss or gradient is not finite or spikes changes nothing and says why in `skipped`.
        `stop` tells whether this rank was asked to stop; the figure is how many were. A process
        on its own then gives the step up between two micro-batches: CutShortError, and nothing
        has happened.
        """
        sums = self._backward(micros, stop)
        loss, counted, squares, stops = sums.unbind()
        counted = counted.clamp_min(1)  # a step in which nothing counts learns nothing
        factor = counted / self.tokens * (self.scale.scale if self.scale else 1)
        norm = squares.sqrt() / factor
        finite = (norm + loss).isfinite()
        divisor = factor * (norm / self.clip).clamp_min(1)
        why = NOT_FINITE * (~finite).to(norm.dtype)
        if self.spikes:
            values = torch.stack([loss / counted, norm])
            why += SPIKE * (self.spikes.detect(values) & finite)
            self.spikes.remember(values, why > 0)
        skip = (why > 0).float()
        self.optimizer.step(lr, left, torch.where(finite, divisor, 1).float(), skip)
        self.optimizer.zero_grad()
        if self.scale:
            self.scale.update((~finite).float())
        return torch.stack([loss / counted, norm, why, stops])

    def _backward(self, micros: Sequence[AnyBatch], stop: Callable[[], bool]) -> Tensor:
        """Gradients of Σ loss / tokens × loss scale into `.grad`; the sums over all ranks."""
        device = self.world.device
        total, counted = torch.zeros(2, dtype=widest_dtype(device), device=device)
        # DDP and FSDP give the mean over the ranks, and what is wanted is the sum
        share = self.world.size / self.tokens
        for number, micro in enumerate(micros):
            if number and self.world.size == 1 and stop():
                self.optimizer.zero_grad()
                raise CutShortError  # a step may take minutes, and a stop is given seconds
            with self.placed.backward(last=number == len(micros) - 1):
                loss = self.placed.loss(micro)
                scaled = loss * share * (self.scale.scale if self.scale else 1)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            counted += micro.counted()
        parameters = self.placed.parameters.values()
        grads = [local(p.grad) for p in parameters if p.grad is not None]
        squares = torch.nn.utils.get_total_norm(grads).to(total.dtype) ** 2 / self.placed.copies
        stops = torch.full_like(total, float(stop()))
        return self.world.sum(torch.stack([total, counted, squares, stops]))
