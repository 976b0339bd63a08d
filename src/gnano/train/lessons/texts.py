"""Pretraining on token shards that `gnano prepare` made, or is making."""

from functools import cached_property
from pathlib import Path

from gnano.data.batches import Batches
from gnano.data.corpus import Corpus
from gnano.data.sources import DataConfig
from gnano.data.split import nothing_held_out
from gnano.model.folder import read_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.base import Base
from gnano.train.heldout import Heldout
from gnano.train.lessons.lessons import Lessons
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe


class Texts(Lessons):
    """A run that starts with a base has the base's shape, and needs its tokenizer."""

    def __init__(self, config: DataConfig, length: int, base: Base | None) -> None:
        has_shape = base is not None and (base.folder / "config.json").is_file()
        self.shape = read_config(base.folder) if base is not None and has_shape else None
        self.config, self.base = config, base
        self.length = self.shape.block_size if self.shape else length
        self.corpus = Corpus(Path(config.folder))
        self.where = str(self.corpus.folder)
        self.fingerprint = self.corpus.manifest.fingerprint
        self.tokenizer = self.corpus.tokenizer
        self.growing = not self.corpus.manifest.complete
        if base is None or not has_shape:
            return
        if Tokenizer.load(base.folder).fingerprint != self.tokenizer.fingerprint:
            raise ValueError(
                f"{self.where} was tokenized otherwise than {base.folder} has learned, so its ids "
                f"mean other texts; prepare it with that tokenizer "
                f"(data.tokenizer = {str(base.folder)!r})."
            )

    @cached_property  # built when first used: errors of the recipe are reported before its own
    def rows(self) -> Batches:  # type: ignore[override]
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

    def resolve(self, recipe: Recipe) -> Recipe:
        recipe = super().resolve(recipe)
        vocab_size = self.corpus.manifest.tokenizer["vocab_size"]
        if recipe.model.vocab_size != vocab_size:
            raise ValueError(
                f"{self.where} was tokenized with {vocab_size:,} entries, but the model has "
                f"model.vocab_size {recipe.model.vocab_size:,}; set it to {vocab_size}, or prepare "
                f"with another data.tokenizer."
            )
        self.corpus.weights(recipe.corpus.weights)
        return recipe

    def measure(self, recipe: Recipe, world: World) -> Heldout:
        return Heldout(
            self.corpus, self.config.weights, self.length, recipe.train.micro_batch, world
        )
