"""The train room: recipes, the one loop, and checkpoints."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily
from gnano.train.config import TrainConfig
from gnano.train.recipe import Recipe, flatten, load_recipe, recipe_names

if TYPE_CHECKING:
    from gnano.train.checkpoint import checkpoints, find_checkpoint, verify
    from gnano.train.heldout import Heldout, HeldoutLoss
    from gnano.train.loop import RunResult, train
    from gnano.train.watching.progress import Progress

__all__ = [
    "Heldout",
    "HeldoutLoss",
    "Progress",
    "Recipe",
    "RunResult",
    "TrainConfig",
    "checkpoints",
    "find_checkpoint",
    "flatten",
    "load_recipe",
    "recipe_names",
    "train",
    "verify",
]

__getattr__ = lazily(
    __name__,
    {
        "Heldout": "heldout",
        "HeldoutLoss": "heldout",
        "Progress": "watching.progress",
        "RunResult": "loop",
        "checkpoints": "checkpoint",
        "find_checkpoint": "checkpoint",
        "train": "loop",
        "verify": "checkpoint",
    },
)
