"""Pretraining on the token shards of `gnano prepare`, which may still be running."""

from functools import cached_property
from pathlib import Path

from gnano.config.data_config import DataConfig
from gnano.config.recipe import Recipe
from gnano.data.manifest import warn_empty_heldout
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.model.hf_io import load_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.base_checkpoint import BaseCheckpoint
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import HeldoutSet
from gnano.train.tasks.training_task import TrainingTask


class PretrainingTask(TrainingTask):
    """Trains on a corpus; with a base the model has its shape, and the data needs its tokenizer."""

    def __init__(
        self, config: DataConfig, sequence_length: int, base: BaseCheckpoint | None
    ) -> None:
        has_shape = base is not None and (base.folder / "config.json").is_file()
        self.base_config = load_config(base.folder) if base is not None and has_shape else None
        self.config, self.base = config, base
        self.sequence_length = self.base_config.block_size if self.base_config else sequence_length
        self.corpus = TokenizedCorpus(Path(config.folder))
        self.data_location = str(self.corpus.folder)
        self.fingerprint = self.corpus.manifest.fingerprint
        self.tokenizer = self.corpus.tokenizer
        self.is_growing = not self.corpus.manifest.complete
        if base is None or not has_shape:
            return
        if Tokenizer.load(base.folder).fingerprint != self.tokenizer.fingerprint:
            raise ValueError(
                f"{self.data_location} was tokenized with another tokenizer than that of "
                f"{base.folder}, so its ids mean other texts. Prepare it with that tokenizer "
                f"(data.tokenizer = {str(base.folder)!r})."
            )

    @cached_property  # built when first used: errors of the recipe are reported before its own
    def dataset(self) -> PackedDataset:  # type: ignore[override]
        """The packed corpus."""
        config = self.config
        return PackedDataset(
            self.corpus,
            config.weights,
            config.seed,
            self.sequence_length,
            config.packing,
            config.document_attention_mask,
        )

    def describe(self) -> list[str]:
        """Return the size of the data, and a warning where nothing is held out."""
        notes = warn_empty_heldout(self.corpus.folder, self.corpus.manifest)
        return [f"{self.data_location}: {self.dataset.packing_stats()}", *notes]

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the base's shape; raise ValueError where the data differs."""
        recipe = super().resolve(recipe)
        vocab_size = self.corpus.manifest.tokenizer["vocab_size"]
        if recipe.model.vocab_size != vocab_size:
            raise ValueError(
                f"{self.data_location} was tokenized with a vocabulary of {vocab_size:,}, but "
                f"model.vocab_size is {recipe.model.vocab_size:,}. Set it to {vocab_size}, or "
                f"prepare the data with another data.tokenizer."
            )
        self.corpus.ordered_weights(recipe.pretraining_data.weights)
        return recipe

    def build_heldout(self, recipe: Recipe, world: DistContext) -> HeldoutSet:
        """Return the held-out documents."""
        return HeldoutSet(
            self.corpus,
            self.config.weights,
            self.sequence_length,
            recipe.train.micro_batch_size,
            world,
        )
