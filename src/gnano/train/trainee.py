"""The training state: the model on all ranks, its optimizer, and the step they take.

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

from gnano.data.any_batch import AnyBatch
from gnano.model.fp8 import convert_to_fp8
from gnano.model.gpt import GPT
from gnano.model.lora import add_lora, merge_lora
from gnano.train.base import BaseCheckpoint
from gnano.train.optimizers.optimizer import Optimizer
from gnano.train.optimizers.scaling import GradScaler
from gnano.train.precision import COMPUTE_DTYPES
from gnano.train.ranks.parallel import gather_full, parallelize, shard_like, to_local
from gnano.train.ranks.world import DistContext
from gnano.train.recipe import Recipe
from gnano.train.saving.checkpoint import LORA_PREFIX, Snapshot
from gnano.train.saving.folders import list_checkpoints
from gnano.train.saving.restoring import latest_valid_checkpoint
from gnano.train.saving.saver import AsyncCheckpointWriter
from gnano.train.spikes import SpikeDetector
from gnano.train.step import TrainStep

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
