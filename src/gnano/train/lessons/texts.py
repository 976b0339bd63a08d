"""Pretraining: token shards that `gnano prepare` made, or is making."""

from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from gnano.data import Batches, Corpus, DataConfig
from gnano.data.split import nothing_held_out
from gnano.model import read_config
from gnano.tokenizer import Tokenizer
from gnano.train.base import Base, base_of
from gnano.train.heldout import Heldout
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say


class Texts:
    template = None

    def __init__(self, config: DataConfig, length: int, base: Base | None) -> None:
        self.config, self.length, self.base = config, length, base
        self.corpus = Corpus(Path(config.folder))
        self.where = str(self.corpus.folder)
        self.fingerprint = self.corpus.manifest.fingerprint

    @property
    def tokenizer(self) -> Tokenizer:
        return self.corpus.tokenizer

    @property
    def growing(self) -> bool:
        return not self.corpus.manifest.complete

    @cached_property
    def rows(self) -> Batches:
        config = self.config
        return Batches(
            self.corpus,
            config.weights,
            config.seed,
            self.length,
            config.packing,
            config.inside_documents,
        )

    def about(self) -> list[str]:
        notes = nothing_held_out(self.corpus.folder, self.corpus.manifest)
        return [f"{self.where}: {self.rows.waste()}", *notes]

    def check(self, recipe: Recipe) -> None:
        vocab_size = self.corpus.manifest.tokenizer["vocab_size"]
        if recipe.model.vocab_size != vocab_size:
            raise ValueError(
                f"{self.where} was tokenized with {vocab_size:,} entries, but the model has "
                f"model.vocab_size {recipe.model.vocab_size:,}; set it to {vocab_size}, or prepare "
                f"with another data.tokenizer."
            )
        self.corpus.weights(recipe.corpus.weights)

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:
        """Nothing: its shards are prepared."""

    def measure(self, recipe: Recipe, world: World) -> Heldout:
        return Heldout(
            self.corpus, self.config.weights, self.length, recipe.train.micro_batch, world
        )


def open_texts(recipe: Recipe, run: Path, world: World) -> tuple[Recipe, Texts]:
    """A run that begins with a base's weights has the base's shape, and needs its tokenizer."""
    base = world.by_first(partial(base_of, recipe.train.base, run))
    here = base is not None and (base.folder / "config.json").is_file()
    if base is not None and here:
        shape = replace(read_config(base.folder), dropout=recipe.model.dropout)
        recipe = replace(recipe, model=shape)
    texts = Texts(recipe.corpus, recipe.model.block_size, base)
    if base is not None and here and _fingerprint(base) != texts.tokenizer.fingerprint:
        raise ValueError(
            f"{texts.where} was tokenized otherwise than {base.folder} has learned, so its ids "
            f"mean other texts; prepare it with that tokenizer "
            f"(data.tokenizer = {str(base.folder)!r})."
        )
    return recipe, texts


def _fingerprint(base: Base) -> str:
    return Tokenizer.load(base.folder).fingerprint
