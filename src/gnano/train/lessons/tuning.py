"""What do instructions and preferences have in common? A base, a template, and epochs.

base ─▶ the model's shape, the tokenizer, perhaps the template
rows an epoch × epochs / rows a step ─▶ steps
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gnano.data import InstructionConfig
from gnano.data.instructions import ALPACA, Example, Template, files_of, load_template, template_of
from gnano.model import read_config
from gnano.tokenizer import Tokenizer
from gnano.train.base import Base, base_of
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.folders import checkpoints
from gnano.train.waiting import Say


@dataclass(frozen=True)
class Start:
    """What a tuning run begins with."""

    recipe: Recipe  # with the base's shape
    base: Base
    tokenizer: Tokenizer
    template: Template


def start(recipe: Recipe, run: Path, world: World) -> Start:
    """Raises ValueError or OSError where there is no base, or none that could be tuned."""
    base = world.by_first(partial(base_of, recipe.train.base, run))
    if base is None:
        raise ValueError(
            "Tuning begins with a model: name a run, a checkpoint or a Hugging Face folder "
            "(--from, or train.base)."
        )
    # a run that has checkpoints goes on without its base (unless it learns an adapter of it)
    folder = next((f for f in [base.folder, *checkpoints(run)] if f.is_dir()), None)
    if folder is None:
        raise ValueError(base.gone)
    name = recipe.instructions.template
    own = load_template(name) if name else template_of(folder)
    shape = replace(read_config(folder), dropout=recipe.model.dropout)
    return Start(replace(recipe, model=shape), base, Tokenizer.load(folder), own or ALPACA)


def bring(config: InstructionConfig, world: World, say: Say) -> None:
    """The files of the Hub, by the first rank for all that share its disk; the others find them."""
    world.doing("bringing the Hub's files", math.inf)
    for source in config.sources.values():
        world.by_first(
            partial(files_of, source, Path(config.downloads), partial(say, waiting=True))
        )


def with_epochs(recipe: Recipe, rows: int, say: Say) -> Recipe:
    """The recipe with the steps that its epochs of so many rows are."""
    config, settings = recipe.instructions, recipe.train
    if not config.epochs:
        return recipe
    at_once = max(settings.tokens_per_step // recipe.model.block_size, 1)
    steps = max(math.ceil(config.epochs * rows / at_once), 1)
    if steps != settings.steps:
        say(
            f"{config.epochs:g} epochs of {rows:,} rows are {steps:,} steps (data.epochs decides; "
            f"0 leaves it to train.steps)"
        )
    return replace(recipe, train=replace(settings, steps=steps))


def fingerprint(parts: Iterable[Iterable[Example]]) -> str:
    """Stands for all examples, what is learned of each, and which belong together."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"part")
        for example in part:
            hashed.update(len(example.ids).to_bytes(4, "little"))
            hashed.update(example.ids.tobytes())
            hashed.update(example.learned.tobytes())
    return hashed.hexdigest()
