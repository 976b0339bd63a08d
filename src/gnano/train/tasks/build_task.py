"""Choose the training task of a recipe."""

from functools import partial
from pathlib import Path

from gnano.config.data_config import DataConfig
from gnano.config.recipe import Recipe
from gnano.train.base_checkpoint import find_base
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.tasks.dpo_task import DPOTask
from gnano.train.tasks.pretraining import PretrainingTask
from gnano.train.tasks.sft_task import SFTTask
from gnano.train.tasks.training_task import TrainingTask


def build_task(recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> TrainingTask:
    """Open the data that the recipe trains on, and its base.

    Raises ValueError or OSError where it is missing or cannot be used.
    """
    base = world.run_on_main(partial(find_base, recipe.train.init_from, run))
    if isinstance(recipe.data, DataConfig):
        return PretrainingTask(recipe.pretraining_data, recipe.model.block_size, base)
    if recipe.data.kind == "preferences":
        return DPOTask(recipe, base, run, world, notify)
    return SFTTask(recipe, base, run, world, notify)
