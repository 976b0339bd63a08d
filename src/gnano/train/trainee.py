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
from gnano.model.fp8 import use_fp8
from gnano.model.gpt import GPT
from gnano.model.lora import add_lora, merged
from gnano.train.base import Base
from gnano.train.optimizers.optimizer import Optimizer
from gnano.train.optimizers.scaling import LossScale
from gnano.train.precision import DTYPES
from gnano.train.ranks.parallel import gathered, local, place, scattered
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.checkpoint import LORA, Snapshot
from gnano.train.saving.folders import checkpoints
from gnano.train.saving.restoring import newest_good
from gnano.train.saving.saver import Saver
from gnano.train.spikes import Spikes
from gnano.train.step import Step

OTHERS = ("loss_scale", "spikes", "lora")  # what has tensors to save beside the optimizer


class Trainee:
    """`damaged` is called with each checkpoint that had to be skipped, and the reason."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: World,
        damaged: Callable[[Path, str], None] = lambda *_: None,
        base: Base | None = None,
    ) -> None:
        self.recipe, self.run, self.world, self.damaged = recipe, run, world, damaged
        settings, guard, compute = recipe.train, recipe.train.guard, DTYPES[recipe.train.precision]
        torch.manual_seed(settings.seed)
        self.model = GPT.from_config(recipe.model).to(world.device)
        if base is not None:
            world.by_first(partial(self._load_base, base))
        if settings.lora.rank:
            add_lora(self.model, settings.lora)
        self.model.compute_dtype = compute
        self.model.recompute = settings.recompute
        self.fp8 = use_fp8(self.model) if settings.precision == "fp8" else []  # names of layers
        if settings.compile == "yes":
            self.model.compile_blocks()
        self.placed = place(self.model, world, settings.parallel, compute, settings.replicas)
        self.optimizer = Optimizer(self.model, settings.optimizer)
        self.scale = LossScale(world.device) if settings.precision == "fp16" else None
        self.spikes = Spikes(guard.window, guard.spike, world.device) if guard.spike else None
        self.step = Step(
            self.placed,
            self.optimizer,
            world,
            tokens=settings.tokens_per_step,
            clip=settings.clip,
            scale=self.scale,
            spikes=self.spikes,
        )
        self.done = 0  # steps
        self.state: dict[str, Any] = {}  # of the checkpoint that it was restored from
        self.checkpoint: Path | None = None
        self.restore()

    @property
    def bytes(self) -> int:
        """Of its checkpoint's tensors."""
        tensors = [*self.placed.parameters.values(), *self._training_state().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def learn(
        self, micros: Sequence[AnyBatch], step: int, stop: Callable[[], bool] = lambda: False
    ) -> Tensor:
        """Take step number `step` (from 0) on this rank's micro-batches; `Step`'s figures."""
        settings = self.recipe.train
        # dropout's draws follow from the step's number too, so nothing of them is to be kept
        words = (settings.seed, step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        left = 1 - step / settings.steps
        return self.step.run(micros, settings.schedule(step, settings.steps), left, stop)

    def save(self, step: int, state: dict[str, Any], saver: Saver | None) -> None:
        """Begin to write the checkpoint after so many steps; the first rank has the saver."""
        if saver:
            saver.ready()
        weights = gathered(self.placed.parameters, self.world)
        if self.recipe.train.lora.rank and saver:
            weights = merged(weights, self.recipe.train.lora)
        training = gathered(self._training_state(), self.world)
        if saver:
            saver.start(Snapshot(step, saver.copy(weights), saver.copy(training), state))

    def restore(self, good: Callable[[dict[str, Any]], bool] = lambda state: True) -> bool:
        """Become what the newest checkpoint with a `good` state holds; False where none is."""
        weights: dict[str, Tensor] = {}
        training: dict[str, Tensor] = {}

        def read() -> tuple[Path, int, dict[str, Any]] | None:
            found = newest_good(self.run, self.recipe.model, self.damaged, good)
            if found is None:
                return None
            folder, snapshot = found
            weights.update(snapshot.weights)
            training.update(snapshot.training)
            return folder, snapshot.step, snapshot.state

        found = self.world.by_first(read)
        if found is None:
            return False
        self.checkpoint, self.done, self.state = found
        parameters = dict(self.placed.parameters)
        if self.recipe.train.lora.rank:
            parameters = {}  # they are the base's; what was learned lies with the training
        for name, part in scattered(weights, parameters, self.world).items():
            local(parameters[name].detach()).copy_(local(part))
        self.placed.reshard()
        self._load_training_state(training)
        return True

    def _load_base(self, base: Base) -> None:
        """Load rank 0's weights, which the others are given; a full checkpoint needs no base."""
        if self.recipe.train.lora.rank or not checkpoints(self.run):
            base.load_into(self.model)

    def _training_state(self) -> dict[str, Tensor]:
        """All tensors to save beside the weights."""
        return {**self.optimizer.tensors(), **self._other_tensors()}

    def _other_tensors(self) -> dict[str, Tensor]:
        parts = [part.tensors() for part in (self.scale, self.spikes) if part]
        if self.recipe.train.lora.rank:
            adapter = self.optimizer.parameters.items()
            parts.append({f"{LORA}{name}": parameter.detach() for name, parameter in adapter})
        return {name: tensor for part in parts for name, tensor in part.items()}

    def _load_training_state(self, tensors: dict[str, Tensor]) -> None:
        """Load the whole tensors, which rank 0 has, into the optimizer and the others."""
        own, others = self._training_state(), self._other_tensors()
        if self.world.first:
            # what a setting that was changed since has switched on, or made larger, starts anew
            for name, tensor in others.items():
                if name not in tensors or tensors[name].shape != tensor.shape:
                    tensors[name] = tensor
            self.optimizer.check(
                {name: t for name, t in tensors.items() if name.split("/")[0] not in OTHERS}
            )
        parts = scattered(tensors, own, self.world)
        for name, tensor in others.items():
            local(tensor).copy_(local(parts.pop(name)))
        self.optimizer.load(parts)
