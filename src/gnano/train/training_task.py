"""A training task: the data that a run trains on and is evaluated on, with its tokenizer and base.

    [data] of texts          ─▶ PretrainingTask   token shards, held-out documents
    [data] of instructions   ─▶ SFTTask           packed answers to questions
    [data] of preferences    ─▶ DPOTask           packed pairs of answers

Pretraining reads the shards of `gnano prepare`, which may still be running. The others are in
`tuning_task`.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from gnano.config.data_config import DataConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.data.manifest import warn_empty_heldout
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.sft.chat_template import AnyTemplate
from gnano.data.sft.sft_dataset import TrainingDataset
from gnano.model.hf_io import load_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import HeldoutSet, HeldoutText
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
    chat_template: AnyTemplate | None = None
    base: BaseCheckpoint | None  # None: the run starts with random weights
    base_config: ModelConfig | None
    is_growing: bool = False  # whether `gnano prepare` is still adding data
    # both exist after `load`
    dataset: TrainingDataset
    heldout: HeldoutSet[Any]

    @abstractmethod
    def resolve(self, recipe: Recipe) -> Recipe:
        """Return a recipe of the base's shape with the values that follow from the data.

        Raises ValueError where it does not fit the data.
        """

    @abstractmethod
    def load(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> list[str]:
        """Load what the first step needs; return the messages to show before it."""


class PretrainingTask(TrainingTask):
    """Trains on a corpus; with a base the model has its shape, and the data needs its tokenizer."""

    def __init__(self, config: DataConfig, base: BaseCheckpoint | None) -> None:
        self.base, self.base_config = base, None
        self.corpus = TokenizedCorpus(Path(config.folder))
        self.data_location = str(self.corpus.folder)
        self.fingerprint = self.corpus.manifest.fingerprint
        self.tokenizer = self.corpus.tokenizer
        self.is_growing = not self.corpus.manifest.complete
        if base is None or not (base.folder / "config.json").is_file():
            return
        self.base_config = load_config(base.folder)
        if load_tokenizer(base.folder).fingerprint != self.tokenizer.fingerprint:
            raise ValueError(
                f"{self.data_location} was tokenized with another tokenizer than that of "
                f"{base.folder}, so its ids mean other texts. Prepare it with that tokenizer "
                f"(data.tokenizer = {str(base.folder)!r})."
            )

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe; raise ValueError where vocabulary or sources of the data differ."""
        vocab_size = self.corpus.manifest.tokenizer["vocab_size"]
        if recipe.model.vocab_size != vocab_size:
            raise ValueError(
                f"{self.data_location} was tokenized with a vocabulary of {vocab_size:,}, but "
                f"model.vocab_size is {recipe.model.vocab_size:,}. Set it to {vocab_size}, or "
                f"prepare the data with another data.tokenizer."
            )
        self.corpus.ordered_weights(recipe.pretraining_data.weights)
        return recipe

    def load(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> list[str]:
        """Pack the corpus; return its size, and a warning where nothing is held out."""
        corpus, data, length = self.corpus, recipe.pretraining_data, recipe.model.block_size
        self.dataset = PackedDataset(
            corpus, data.weights, data.seed, length, data.packing, data.document_attention_mask
        )
        config = recipe.train
        self.heldout = HeldoutText(
            corpus, data.weights, length, config.micro_batch_size, config.eval_tokens, world
        )
        notes = warn_empty_heldout(corpus.folder, corpus.manifest)
        return [f"{self.data_location}: {self.dataset.packing_stats()}", *notes]
