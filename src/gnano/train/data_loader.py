"""What does this rank compute next? The micro-batches of a step, on the device in time.

On a GPU the batches of the next step are laid out and copied, through pinned memory and on a
stream of their own, while the step before is computed; a batch depends on its number alone, so
that needs no worker processes.

Training while the data is still being prepared: it waits, and says for what.
"""

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gnano.config.train_config import TrainConfig
from gnano.data.sampler import rank_sample_range
from gnano.data.sft.sft_dataset import AnyBatch, TrainingDataset
from gnano.train.distributed.context import DistContext
from gnano.utils.stop_request import SignalHandler


class PrefetchLoader:
    """`data_step` tells whose samples a step takes; mostly its own."""

    def __init__(
        self,
        dataset: TrainingDataset,
        world: DistContext,
        config: TrainConfig,
        data_index: Callable[[int], int] = lambda step: step,
    ) -> None:
        self.dataset, self.world, self.data_index = dataset, world, data_index
        self.samples_per_step = (
            config.tokens_per_step // dataset.block_size
        )  # sequences, over all ranks
        self.micro_batch_size = config.micro_batch_size
        self.accumulation_steps = config.accumulation_steps(dataset.block_size, world.world_size)
        self.copy_stream = torch.Stream(world.device) if world.device.type == "cuda" else None
        self.prefetched: tuple[int, list[AnyBatch]] = (-1, [])  # by the step of the data

    def sample_range(self, step: int) -> range:
        """The samples of all ranks in this step."""
        data = self.data_index(step)
        return range(data * self.samples_per_step, (data + 1) * self.samples_per_step)

    def missing(self, step: int) -> str | None:
        """What this step waits for while the data is being prepared."""
        return self.dataset.missing(self.sample_range(step))

    def prefetch(self, step: int) -> None:
        """Begin to bring a step's micro-batches; does nothing if they are not there yet."""
        if self.missing(step) is None:
            self.prefetched = self.data_index(step), self._load_micro_batches(step)

    def next_micro_batches(self, step: int) -> list[AnyBatch]:
        """This rank's micro-batches of a step, whose samples are there."""
        prepared, micros = self.prefetched
        if prepared != self.data_index(step):
            micros = self._load_micro_batches(step)
        self.prefetched = -1, []
        if self.copy_stream is not None:
            current = torch.accelerator.current_stream(self.world.device)
            current.wait_stream(self.copy_stream)
            for tensor in (tensor for micro in micros for tensor in micro if tensor is not None):
                tensor.record_stream(current)  # not to be reused before the step has read it
        return micros

    def _load_micro_batches(self, step: int) -> list[AnyBatch]:
        micros = []
        for number in range(self.accumulation_steps):
            samples = rank_sample_range(
                self.data_index(step),
                number,
                self.world.rank,
                samples_per_step=self.samples_per_step,
                micro_batch=self.micro_batch_size,
                world_size=self.world.world_size,
            )
            micros.append(self._to_device(self.dataset.read_batch(samples)))
        return micros

    def _to_device(self, batch: AnyBatch) -> AnyBatch:
        if self.copy_stream is None:
            return batch.map_tensors(lambda tensor: tensor.to(self.world.device))
        with self.copy_stream:
            return batch.map_tensors(self._copy_async)

    def _copy_async(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.world.device, non_blocking=True)


POLL_INTERVAL = 1.0  # seconds between two looks


class Notify(Protocol):
    """Hears a fact about the run, or what it waits for, again and again until it is there."""

    def __call__(self, text: str, waiting: bool = False) -> None: ...


class DataWaiter:
    """All ranks wait together, or none does: a step is begun by everyone or by no one."""

    def __init__(
        self, world: DistContext, signals: SignalHandler, notify: Notify, is_growing: bool
    ) -> None:
        self.world, self.signals, self.notify = world, signals, notify
        # known from the start to be all there, the data needs no word between the ranks
        self.is_growing = bool(world.all_reduce_max(is_growing)[0])

    def wait_until_available(self, find_missing: Callable[[], str | None]) -> bool:
        """Wait until nothing is lacking on any rank; False where the run is to stop instead."""
        if self.is_growing:  # the preparation may take days
            self.world.set_phase("waiting for data that is being prepared", math.inf)
        while self.is_growing:
            missing = find_missing()
            someone_lacks, stopping = self.world.all_reduce_max(
                missing is not None, self.signals.should_stop()
            )
            if stopping:
                return False
            if not someone_lacks:
                return True
            self.notify(missing or "waiting for another rank's data", waiting=True)
            time.sleep(POLL_INTERVAL)
        # several ranks agree on it in the figures of a step
        return self.world.world_size > 1 or not self.signals.should_stop()
