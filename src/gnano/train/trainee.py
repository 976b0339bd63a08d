"""What learns: the model in its place on all ranks, its optimizer, and the step they take.

It begins with the weights that the seed gives, or as the run's last checkpoint left it:

    seed or checkpoint ─▶ model ─▶ fp8? compiled? ─▶ placed on the ranks ─▶ optimizer ─▶ step
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from gnano.data import Batch
from gnano.model import GPT
from gnano.model.fp8 import use_fp8
from gnano.tokenizer import Tokenizer
from gnano.train.checkpoint import checkpoints, keep_newest, load_checkpoint, save_checkpoint
from gnano.train.optimizers.optimizer import Optimizer
from gnano.train.optimizers.scaling import LossScale
from gnano.train.precision import DTYPES
from gnano.train.ranks.parallel import gathered, place, scattered
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.step import Step


class Trainee:
    def __init__(self, recipe: Recipe, run: Path, world: World) -> None:
        self.recipe, self.run, self.world = recipe, run, world
        settings = recipe.train
        torch.manual_seed(settings.seed)
        self.model = GPT.from_config(recipe.model).to(world.device)
        restored: dict[str, Tensor] = {}
        state = world.by_first(lambda: self._restore(restored))
        self.done: int = state.get("step", 0)  # steps
        self.seconds: float = state.get("seconds", 0.0)  # of training
        self.checkpoint: Path | None = state.get("folder")

        self.model.compute_dtype = DTYPES[settings.precision]
        self.model.recompute = settings.recompute
        self.fp8 = use_fp8(self.model) if settings.precision == "fp8" else []  # names of layers
        if settings.compile == "yes":
            self.model.compile_blocks()
        compute = DTYPES[settings.precision]
        placed = place(self.model, world, settings.parallel, compute, settings.replicas)
        self.optimizer = Optimizer(self.model, settings.optimizer)
        self.scale = LossScale(world.device) if settings.precision == "fp16" else None
        if self.done:
            self._remember(scattered(restored, self._training(), world))
        self.step = Step(
            placed,
            self.optimizer,
            world,
            tokens=settings.tokens_per_step,
            clip=settings.clip,
            scale=self.scale,
        )

    def learn(self, micros: list[Batch], step: int, stop: bool = False) -> Tensor:
        """Take step number `step` (from 0) on this rank's micro-batches; `Step`'s figures."""
        settings = self.recipe.train
        # dropout's draws follow from the step's number too, so nothing of them is to be kept
        words = (settings.seed, step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        left = 1 - step / settings.steps
        return self.step(micros, settings.schedule(step, settings.steps), left, stop)

    def save(self, step: int, seconds: float, tokenizer: Tokenizer) -> Path:
        """The checkpoint after so many steps, written by the first rank; older ones may go."""
        weights = gathered(dict(self.model.named_parameters()), self.world)
        training = gathered(self._training(), self.world)

        def write() -> Path:
            model = self._whole(weights)
            state = {"seconds": seconds}
            folder = save_checkpoint(self.run, step, model, training, tokenizer, state)
            keep_newest(self.run, self.recipe.train.keep)
            return folder

        return self.world.by_first(write)

    def _restore(self, training: dict[str, Tensor]) -> dict[str, Any]:
        """Fill the model from the newest checkpoint, if there is one; its state."""
        found = checkpoints(self.run)
        if not found:
            return {}
        tensors, state = load_checkpoint(found[-1], self.model)
        training.update(tensors)
        return {**state, "folder": found[-1]}

    def _training(self) -> dict[str, Tensor]:
        """All that is to be remembered beside the weights."""
        return {**self.optimizer.tensors(), **(self.scale.tensors() if self.scale else {})}

    def _remember(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in (self.scale.tensors() if self.scale else {}).items():
            tensor.copy_(tensors.pop(name))
        self.optimizer.load(tensors)

    def _whole(self, weights: dict[str, Tensor]) -> GPT:
        """The model in one piece, to be saved."""
        if not any(isinstance(p, DTensor) for p in self.model.parameters()):
            return self.model
        with torch.device("meta"):
            model = GPT.from_config(self.recipe.model)
        model.load_state_dict(weights, assign=True)
        return model
