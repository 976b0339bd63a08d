"""The train room: recipes, the one loop, and checkpoints."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily
from gnano.train.config import TrainConfig
from gnano.train.recipe import Recipe, flatten, load_recipe, recipe_names

if TYPE_CHECKING:
    from gnano.train.alone import holder
    from gnano.train.appearing import new_file, new_folder
    from gnano.train.base import Base, base_of
    from gnano.train.heldout import Exam, Heldout, HeldoutLoss, OpenExam, add_up, evaluating
    from gnano.train.loop import RunResult, train
    from gnano.train.merging import copy_words, merge_adapter
    from gnano.train.ranks.world import World
    from gnano.train.saving.folders import checkpoints, find_checkpoint, step_of
    from gnano.train.saving.hashes import verify, verify_sizes, write_hashes
    from gnano.train.saving.retention import best_of
    from gnano.train.sharing import weights_only
    from gnano.train.watching.journal import peak_memory
    from gnano.train.watching.progress import Progress

__all__ = [
    "Base",
    "Exam",
    "Heldout",
    "HeldoutLoss",
    "OpenExam",
    "Progress",
    "Recipe",
    "RunResult",
    "TrainConfig",
    "World",
    "add_up",
    "base_of",
    "best_of",
    "checkpoints",
    "copy_words",
    "evaluating",
    "find_checkpoint",
    "flatten",
    "holder",
    "load_recipe",
    "merge_adapter",
    "new_file",
    "new_folder",
    "peak_memory",
    "recipe_names",
    "step_of",
    "train",
    "verify",
    "verify_sizes",
    "weights_only",
    "write_hashes",
]

__getattr__ = lazily(
    __name__,
    {
        "Base": "base",
        "Exam": "heldout",
        "Heldout": "heldout",
        "HeldoutLoss": "heldout",
        "OpenExam": "heldout",
        "Progress": "watching.progress",
        "RunResult": "loop",
        "World": "ranks.world",
        "add_up": "heldout",
        "base_of": "base",
        "best_of": "saving.retention",
        "checkpoints": "saving.folders",
        "evaluating": "heldout",
        "find_checkpoint": "saving.folders",
        "holder": "alone",
        "copy_words": "merging",
        "merge_adapter": "merging",
        "new_file": "appearing",
        "new_folder": "appearing",
        "peak_memory": "watching.journal",
        "step_of": "saving.folders",
        "train": "loop",
        "verify": "saving.hashes",
        "verify_sizes": "saving.hashes",
        "weights_only": "sharing",
        "write_hashes": "saving.hashes",
    },
)
