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
from gnano.model.devices import accumulation_dtype
from gnano.train.optimizers.optimizer import Optimizer
from gnano.train.optimizers.scaling import GradScaler
from gnano.train.ranks.parallel import ParallelModel, to_local
from gnano.train.ranks.world import DistContext
from gnano.train.spikes import SpikeDetector
from gnano.train.stopping import InterruptedByStop

STEP_METRICS = ("loss", "grad_norm", "skipped", "stop")  # what a step tells, in this order
SKIPPED_NOT_FINITE, SKIPPED_SPIKE = 1, 2  # why a step was skipped


class TrainStep:
    """`tokens` is the number a step is expected to count, `clip` the largest gradient norm."""

    def __init__(
        self,
        parallel_model: ParallelModel,
        optimizer: Optimizer,
        world: DistContext,
        *,
        tokens_per_step: int,
        grad_clip: float,
        loss_scale: GradScaler | None = None,
        spike_detector: SpikeDetector | None = None,
    ) -> None:
        self.parallel_model, self.optimizer, self.world = parallel_model, optimizer, world
        self.tokens_per_step, self.grad_clip, self.loss_scale, self.spike_detector = (
            tokens_per_step,
            grad_clip,
            loss_scale,
            spike_detector,
        )

    def run(
        self,
        micro_batches: Sequence[AnyBatch],
        lr: float,
        remaining: float = 1.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """The figures [4] of this step over all ranks, on the device, in its widest dtype.

        `micros` are this rank's micro-batches, on its device. The loss is the mean in nats over
        all targets that count, the norm that of its gradient before clipping; a step whose
        loss or gradient is not finite or spikes changes nothing and says why in `skipped`.
        `stop` tells whether this rank was asked to stop; the figure is how many were. A process
        on its own then gives the step up between two micro-batches: CutShortError, and nothing
        has happened.
        """
        sums = self._accumulate_gradients(micro_batches, should_stop)
        loss, counted, squares, stops = sums.unbind()
        counted = counted.clamp_min(1)  # a step in which nothing counts learns nothing
        factor = counted / self.tokens_per_step * (self.loss_scale.scale if self.loss_scale else 1)
        norm = squares.sqrt() / factor
        finite = (norm + loss).isfinite()
        divisor = factor * (norm / self.grad_clip).clamp_min(1)
        why = SKIPPED_NOT_FINITE * (~finite).to(norm.dtype)
        if self.spike_detector:
            values = torch.stack([loss / counted, norm])
            why += SKIPPED_SPIKE * (self.spike_detector.is_spike(values) & finite)
            self.spike_detector.update(values, why > 0)
        skip = (why > 0).float()
        self.optimizer.step(lr, remaining, torch.where(finite, divisor, 1).float(), skip)
        self.optimizer.zero_grad()
        if self.loss_scale:
            self.loss_scale.update((~finite).float())
        return torch.stack([loss / counted, norm, why, stops])

    def _accumulate_gradients(
        self, micro_batches: Sequence[AnyBatch], should_stop: Callable[[], bool]
    ) -> Tensor:
        """Gradients of Σ loss / tokens × loss scale into `.grad`; the sums over all ranks."""
        device = self.world.device
        total, counted = torch.zeros(2, dtype=accumulation_dtype(device), device=device)
        # DDP and FSDP give the mean over the ranks, and what is wanted is the sum
        share = self.world.world_size / self.tokens_per_step
        for number, micro in enumerate(micro_batches):
            if number and self.world.world_size == 1 and should_stop():
                self.optimizer.zero_grad()
                raise InterruptedByStop  # a step may take minutes, and a stop is given seconds
            with self.parallel_model.backward_context(is_last=number == len(micro_batches) - 1):
                loss = self.parallel_model.loss_fn(micro)
                scaled = loss * share * (self.loss_scale.scale if self.loss_scale else 1)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            counted += micro.count_targets()
        parameters = self.parallel_model.parameters.values()
        grads = [to_local(p.grad) for p in parameters if p.grad is not None]
        squares = (
            torch.nn.utils.get_total_norm(grads).to(total.dtype) ** 2
            / self.parallel_model.grad_copies
        )
        stops = torch.full_like(total, float(should_stop()))
        return self.world.all_reduce_sum(torch.stack([total, counted, squares, stops]))
