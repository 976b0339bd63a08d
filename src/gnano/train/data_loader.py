"""The data loader: the micro-batches of a step, on the device before the step starts.

On a GPU the batches of the next step are assembled and copied, through pinned memory and on a
separate stream, while the current step is computed. A batch depends on its step alone, so that
needs no worker processes.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from gnano.config.train_config import TrainConfig
from gnano.data.sampler import rank_sample_range
from gnano.data.sft.sft_dataset import AnyBatch, TrainingDataset
from gnano.train.distributed.context import DistContext


class Notify(Protocol):
    """Receives messages about the run; those with `waiting` repeat until the wait is over."""

    def __call__(self, text: str, waiting: bool = False) -> None:
        """Show a message."""


class PrefetchLoader:
    """Loads this rank's micro-batches of a step; `data_index` maps the step to that of its data."""

    def __init__(
        self,
        dataset: TrainingDataset,
        world: DistContext,
        config: TrainConfig,
        data_index: Callable[[int], int] = lambda step: step,
    ) -> None:
        self.dataset, self.world, self.data_index = dataset, world, data_index
        self.samples_per_step = config.tokens_per_step // dataset.block_size  # over all ranks
        self.micro_batch_size = config.micro_batch_size
        self.accumulation_steps = config.accumulation_steps(dataset.block_size, world.world_size)
        self.copy_stream = torch.Stream(world.device) if world.device.type == "cuda" else None
        self.prefetched: tuple[int, list[AnyBatch]] = (-1, [])  # with the data index

    def sample_range(self, step: int) -> range:
        """Return the samples of all ranks in this step."""
        index = self.data_index(step)
        return range(index * self.samples_per_step, (index + 1) * self.samples_per_step)

    def missing(self, step: int) -> str | None:
        """Return a message while the data of this step is still being prepared."""
        return self.dataset.missing(self.sample_range(step))

    def prefetch(self, step: int) -> None:
        """Start loading a step's micro-batches; do nothing if they are not prepared yet."""
        if self.missing(step) is None:
            self.prefetched = self.data_index(step), self._load_micro_batches(step)

    def next_micro_batches(self, step: int) -> list[AnyBatch]:
        """Return this rank's micro-batches of a step; their data must be prepared."""
        index, batches = self.prefetched
        if index != self.data_index(step):
            batches = self._load_micro_batches(step)
        self.prefetched = -1, []
        if self.copy_stream is not None:
            current = torch.accelerator.current_stream(self.world.device)
            current.wait_stream(self.copy_stream)
            for tensor in (tensor for batch in batches for tensor in batch if tensor is not None):
                tensor.record_stream(current)  # its memory stays in use until the step has read it
        return batches

    def _load_micro_batches(self, step: int) -> list[AnyBatch]:
        def to_device(tensor: Tensor) -> Tensor:
            if self.copy_stream is None:
                return tensor.to(self.world.device)
            return tensor.pin_memory().to(self.world.device, non_blocking=True)

        batches: list[AnyBatch] = []
        for index in range(self.accumulation_steps):
            samples = rank_sample_range(
                self.data_index(step),
                index,
                self.world.rank,
                samples_per_step=self.samples_per_step,
                micro_batch=self.micro_batch_size,
                world_size=self.world.world_size,
            )
            batch = self.dataset.read_batch(samples)
            with self.copy_stream or nullcontext():
                batches.append(batch.map_tensors(to_device))
        return batches
