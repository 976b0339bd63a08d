"""What does this rank compute next? The micro-batches of a step, on the device in time.

On a GPU the batches of the next step are laid out and copied, through pinned memory and on a
stream of their own, while the step before is computed; a batch depends on its number alone, so
that needs no worker processes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnano.data.any_batch import AnyBatch
from gnano.data.order import samples_of
from gnano.train.config import TrainConfig
from gnano.train.lessons.lessons import Rows
from gnano.train.ranks.world import World


class Feed:
    """`data_step` tells whose samples a step takes; mostly its own."""

    def __init__(
        self,
        batches: Rows,
        world: World,
        settings: TrainConfig,
        data_step: Callable[[int], int] = lambda step: step,
    ) -> None:
        self.batches, self.world, self.data_step = batches, world, data_step
        self.per_step = settings.tokens_per_step // batches.length  # sequences, over all ranks
        self.micro_batch = settings.micro_batch
        self.micros = settings.accumulation(batches.length, world.size)
        self.stream = torch.Stream(world.device) if world.device.type == "cuda" else None
        self.ready: tuple[int, list[AnyBatch]] = (-1, [])  # by the step of the data

    def samples(self, step: int) -> range:
        """The samples of all ranks in this step."""
        data = self.data_step(step)
        return range(data * self.per_step, (data + 1) * self.per_step)

    def lacking(self, step: int) -> str | None:
        """What this step waits for while the data is being prepared."""
        return self.batches.lacking(self.samples(step))

    def prepare(self, step: int) -> None:
        """Begin to bring a step's micro-batches; does nothing if they are not there yet."""
        if self.lacking(step) is None:
            self.ready = self.data_step(step), self._bring(step)

    def take(self, step: int) -> list[AnyBatch]:
        """This rank's micro-batches of a step, whose samples are there."""
        prepared, micros = self.ready
        if prepared != self.data_step(step):
            micros = self._bring(step)
        self.ready = -1, []
        if self.stream is not None:
            current = torch.accelerator.current_stream(self.world.device)
            current.wait_stream(self.stream)
            for tensor in (tensor for micro in micros for tensor in micro if tensor is not None):
                tensor.record_stream(current)  # not to be reused before the step has read it
        return micros

    def _bring(self, step: int) -> list[AnyBatch]:
        micros = []
        for number in range(self.micros):
            samples = samples_of(
                self.data_step(step),
                number,
                self.world.rank,
                per_step=self.per_step,
                micro_batch=self.micro_batch,
                ranks=self.world.size,
            )
            micros.append(self._on_device(self.batches.batch(samples)))
        return micros

    def _on_device(self, batch: AnyBatch) -> AnyBatch:
        if self.stream is None:
            return batch.each(lambda tensor: tensor.to(self.world.device))
        with self.stream:
            return batch.each(self._sent)

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.world.device, non_blocking=True)
