"""One training step: from micro-batches to new weights, without waiting for the device.

    micro-batches ─▶ loss ─▶ backward, summed in .grad ─▶ Σ over all ranks ─▶ optimizer
                                                          loss, tokens, grad², stop

What the gradients have to be divided by (the tokens that count in the whole step, the clip,
the loss scale of fp16) is one number on the device that goes into the optimizer's kernel, and
so is whether the step is to be skipped: not finite, or a spike. The four sums are all that a step
tells, in a single exchange; they are read a step late, when the device is busy with the next.

The training state: the model on all ranks, its optimizer, and the step they take.

It starts with random weights, with those of a base, or as the run's last checkpoint left it:

    seed, base ─▶ model ─▶ adapter? fp8? compiled? ─▶ placed on the ranks ─▶ optimizer ─▶ step
                                                           ↑ checkpoint ↑
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnano.checkpoint.async_writer import AsyncCheckpointWriter
from gnano.checkpoint.format import LORA_PREFIX, Snapshot, list_checkpoints
from gnano.checkpoint.manager import latest_valid_checkpoint
from gnano.config.recipe import Recipe
from gnano.data.sft.sft_dataset import AnyBatch
from gnano.model.devices import accumulation_dtype
from gnano.model.fp8 import convert_to_fp8
from gnano.model.lora import add_lora, merge_lora
from gnano.model.transformer import GPT
from gnano.train.base_checkpoint import BaseCheckpoint
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import (
    ParallelModel,
    gather_full,
    parallelize,
    shard_like,
    to_local,
)
from gnano.train.optim.builder import Optimizer
from gnano.train.optim.grad_scaler import GradScaler
from gnano.train.precision import COMPUTE_DTYPES
from gnano.train.stability import SpikeDetector
from gnano.utils.stop_request import StopRequestedError

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
                raise StopRequestedError  # a step may take minutes, and a stop is given seconds
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


EXTRA_STATE_PREFIXES = (
    "loss_scale",
    "spikes",
    "lora",
)  # what has tensors to save beside the optimizer


class TrainState:
    """`damaged` is called with each checkpoint that had to be skipped, and the reason."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: DistContext,
        on_damaged: Callable[[Path, str], None] = lambda *_: None,
        base: BaseCheckpoint | None = None,
    ) -> None:
        self.recipe, self.run, self.world, self.on_damaged = recipe, run, world, on_damaged
        settings, guard, compute = (
            recipe.train,
            recipe.train.stability,
            COMPUTE_DTYPES[recipe.train.precision],
        )
        torch.manual_seed(settings.seed)
        self.model = GPT.from_config(recipe.model).to(world.device)
        if base is not None:
            world.run_on_main(partial(self._load_base_weights, base))
        if settings.lora.rank:
            add_lora(self.model, settings.lora)
        self.model.compute_dtype = compute
        self.model.activation_checkpointing = settings.activation_checkpointing
        self.fp8_layers = (
            convert_to_fp8(self.model) if settings.precision == "fp8" else []
        )  # names of layers
        if settings.compile == "yes":
            self.model.compile_blocks()
        self.parallel_model = parallelize(
            self.model, world, settings.parallel, compute, settings.hsdp_replicas
        )
        self.optimizer = Optimizer(self.model, settings.optimizer)
        self.loss_scale = GradScaler(world.device) if settings.precision == "fp16" else None
        self.spike_detector = (
            SpikeDetector(guard.spike_window, guard.spike_threshold, world.device)
            if guard.spike_threshold
            else None
        )
        self.step_runner = TrainStep(
            self.parallel_model,
            self.optimizer,
            world,
            tokens_per_step=settings.tokens_per_step,
            grad_clip=settings.grad_clip,
            loss_scale=self.loss_scale,
            spike_detector=self.spike_detector,
        )
        self.completed_steps = 0  # steps
        self.loaded_state: dict[str, Any] = {}  # of the checkpoint that it was restored from
        self.checkpoint: Path | None = None
        self.restore()

    @property
    def checkpoint_bytes(self) -> int:
        """Of its checkpoint's tensors."""
        tensors = [*self.parallel_model.parameters.values(), *self._training_tensors().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def train_step(
        self,
        micro_batches: Sequence[AnyBatch],
        step: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """Take step number `step` (from 0) on this rank's micro-batches; `Step`'s figures."""
        settings = self.recipe.train
        # dropout's draws follow from the step's number too, so nothing of them is to be kept
        words = (settings.seed, step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        left = 1 - step / settings.steps
        return self.step_runner.run(
            micro_batches, settings.schedule.lr_at(step, settings.steps), left, should_stop
        )

    def save(self, step: int, state: dict[str, Any], writer: AsyncCheckpointWriter | None) -> None:
        """Begin to write the checkpoint after so many steps; the first rank has the saver."""
        if writer:
            writer.wait_until_idle()
        weights = gather_full(self.parallel_model.parameters, self.world)
        if self.recipe.train.lora.rank and writer:
            weights = merge_lora(weights, self.recipe.train.lora)
        training = gather_full(self._training_tensors(), self.world)
        if writer:
            writer.start(
                Snapshot(step, writer.copy_to_cpu(weights), writer.copy_to_cpu(training), state)
            )

    def restore(self, is_acceptable: Callable[[dict[str, Any]], bool] = lambda state: True) -> bool:
        """Become what the newest checkpoint with a `good` state holds; False where none is."""
        weights: dict[str, Tensor] = {}
        training: dict[str, Tensor] = {}

        def read() -> tuple[Path, int, dict[str, Any]] | None:
            found = latest_valid_checkpoint(
                self.run, self.recipe.model, self.on_damaged, is_acceptable
            )
            if found is None:
                return None
            folder, snapshot = found
            weights.update(snapshot.weights)
            training.update(snapshot.training_tensors)
            return folder, snapshot.step, snapshot.state

        found = self.world.run_on_main(read)
        if found is None:
            return False
        self.checkpoint, self.completed_steps, self.loaded_state = found
        parameters = dict(self.parallel_model.parameters)
        if self.recipe.train.lora.rank:
            parameters = {}  # they are the base's; what was learned lies with the training
        for name, part in shard_like(weights, parameters, self.world).items():
            to_local(parameters[name].detach()).copy_(to_local(part))
        self.parallel_model.reshard()
        self._load_training_tensors(training)
        return True

    def _load_base_weights(self, base: BaseCheckpoint) -> None:
        """Load rank 0's weights, which the others are given; a full checkpoint needs no base."""
        if self.recipe.train.lora.rank or not list_checkpoints(self.run):
            base.load_into(self.model)

    def _training_tensors(self) -> dict[str, Tensor]:
        """All tensors to save beside the weights."""
        return {**self.optimizer.state_dict(), **self._extra_tensors()}

    def _extra_tensors(self) -> dict[str, Tensor]:
        parts = [part.state_dict() for part in (self.loss_scale, self.spike_detector) if part]
        if self.recipe.train.lora.rank:
            adapter = self.optimizer.parameters.items()
            parts.append(
                {f"{LORA_PREFIX}{name}": parameter.detach() for name, parameter in adapter}
            )
        return {name: tensor for part in parts for name, tensor in part.items()}

    def _load_training_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load the whole tensors, which rank 0 has, into the optimizer and the others."""
        own, others = self._training_tensors(), self._extra_tensors()
        if self.world.is_main:
            # what a setting that was changed since has switched on, or made larger, starts anew
            for name, tensor in others.items():
                if name not in tensors or tensors[name].shape != tensor.shape:
                    tensors[name] = tensor
            self.optimizer.check_state_dict(
                {
                    name: t
                    for name, t in tensors.items()
                    if name.split("/")[0] not in EXTRA_STATE_PREFIXES
                }
            )
        parts = shard_like(tensors, own, self.world)
        for name, tensor in others.items():
            to_local(tensor).copy_(to_local(parts.pop(name)))
        self.optimizer.load_state_dict(parts)
