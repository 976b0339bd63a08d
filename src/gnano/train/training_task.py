"""A training task: the data that a run trains on and is evaluated on, with its tokenizer and base.

    [data] of texts          ─▶ PretrainingTask   token shards, held-out documents
    [data] of instructions   ─▶ SFTTask           packed answers to questions
    [data] of preferences    ─▶ DPOTask           packed pairs of answers

Pretraining reads the shards of `gnano prepare`, which may still be running. The others are in
`tuning_task`.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from gnano.config.data_config import DataConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.data.manifest import warn_empty_heldout
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.sft.chat_template import ChatTemplate
from gnano.data.sft.sft_dataset import TrainingDataset
from gnano.model.hf_io import load_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import HeldoutExamples, HeldoutSet
from gnano.train.lineage import BaseCheckpoint


class Notify(Protocol):
    """Receives messages about the run; those with `waiting` repeat until the wait is over."""

    def __call__(self, text: str, waiting: bool = False) -> None:
        """Show a message."""


class TrainingTask(ABC):
    """The data, tokenizer and base of a run."""

    data_location: str  # where the data is stored, for messages
    fingerprint: str  # of all data
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None = None
    base: BaseCheckpoint | None  # None: the run starts with random weights
    base_config: ModelConfig | None
    is_growing: bool = False  # whether `gnano prepare` is still adding data
    dataset: TrainingDataset

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the values that follow from base and data.

        Raises ValueError where it does not fit the data.
        """
        if self.base_config is None:
            return recipe
        return replace(recipe, model=replace(self.base_config, dropout=recipe.model.dropout))

    @abstractmethod
    def describe(self) -> list[str]:
        """Return the messages to show before the first step."""

    def prepare(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> None:
        """Compute what the first step needs; by default nothing."""
        return

    @abstractmethod
    def build_heldout(self, recipe: Recipe, world: DistContext) -> HeldoutSet | HeldoutExamples:
        """Return the held-out data, ready to be evaluated."""


class PretrainingTask(TrainingTask):
    """Trains on a corpus; with a base the model has its shape, and the data needs its tokenizer."""

    def __init__(
        self, config: DataConfig, sequence_length: int, base: BaseCheckpoint | None
    ) -> None:
        self.config, self.base, self.base_config = config, base, None
        self.sequence_length = sequence_length
        self.corpus = TokenizedCorpus(Path(config.folder))
        self.data_location = str(self.corpus.folder)
        self.fingerprint = self.corpus.manifest.fingerprint
        self.tokenizer = self.corpus.tokenizer
        self.is_growing = not self.corpus.manifest.complete
        if base is None or not (base.folder / "config.json").is_file():
            return
        self.base_config = load_config(base.folder)
        self.sequence_length = self.base_config.block_size
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
        batch_size = recipe.train.micro_batch_size
        weights, length = self.config.weights, self.sequence_length
        return HeldoutSet(self.corpus, weights, length, batch_size, world)
