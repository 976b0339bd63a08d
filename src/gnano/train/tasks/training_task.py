"""The training tasks' base classes: the data that a run trains on and is evaluated on.

    [data] of texts          ─▶ PretrainingTask   token shards, held-out documents
    [data] of instructions   ─▶ SFTTask           packed answers to questions
    [data] of preferences    ─▶ DPOTask           packed pairs of answers

SFT and DPO tune a base: they take its model shape and tokenizer, its chat template if it has one,
and count their steps in epochs.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gnano.checkpoint.run_checkpoints import list_checkpoints
from gnano.config.data_config import InstructionConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, Example, load_template, read_template
from gnano.data.sft.record_loading import SplitRecords
from gnano.data.sft.sft_dataset import PreferenceDataset, SFTDataset, TrainingDataset
from gnano.data.source_files import resolve_source_files
from gnano.model.hf_io import load_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.base_checkpoint import BaseCheckpoint
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import HeldoutExamples, HeldoutSet


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


class TuningTask(TrainingTask):
    """The common part of SFT and DPO."""

    base: BaseCheckpoint
    chat_template: ChatTemplate
    dataset: SFTDataset | PreferenceDataset

    def __init__(
        self,
        recipe: Recipe,
        base: BaseCheckpoint | None,
        run: Path,
        world: DistContext,
        notify: Notify,
    ) -> None:
        """Read and encode the data; raise ValueError or OSError where no base can be tuned."""
        if base is None:
            raise ValueError(
                "Tuning needs a base model. Give a run, a checkpoint or a Hugging Face folder "
                "(--from, or train.init_from)."
            )
        # a run that has checkpoints resumes without its base, unless it trains an adapter of it
        folder = next((f for f in [base.folder, *list_checkpoints(run)] if f.is_dir()), None)
        if folder is None:
            raise ValueError(base.missing_message)
        config = recipe.tuning_data
        template = load_template(config.template) if config.template else read_template(folder)
        self.base, self.chat_template = base, template or ALPACA
        self.base_config, self.tokenizer = load_config(folder), Tokenizer.load(folder)
        self.sequence_length, self.beta = self.base_config.block_size, recipe.train.dpo_beta
        self.data_location = ", ".join(source.location for source in config.sources.values())
        # rank 0 downloads for all ranks that share its disk; the others find the files
        world.set_phase("downloading files from the Hub", math.inf)
        cache, notify_waiting = Path(config.cache_dir), partial(notify, waiting=True)
        for source in config.sources.values():
            world.run_on_main(partial(resolve_source_files, source, cache, notify_waiting))
        records = self.load_records(config)
        self.warnings = records.warnings
        train, heldout = (
            {name: [self.encode(record) for record in found] for name, found in part.items()}
            for part in (records.train, records.heldout)
        )
        weights = [config.sources[name].weight for name in train]
        self.dataset = self.pack(list(train.values()), weights, config.seed, config.packing)
        self.heldout_rows = {
            name: self.pack([part], [1.0], 0, True) for name, part in heldout.items()
        }
        self.fingerprint = _fingerprint_examples([*train.values(), *heldout.values()])
        self.steps = self._count_steps(recipe, notify)

    @abstractmethod
    def load_records(self, config: InstructionConfig) -> SplitRecords[Any]:
        """Read the sources and split the records."""

    @abstractmethod
    def encode(self, record: Any) -> Any:
        """Return the record as one or two examples of token ids."""

    @abstractmethod
    def pack(self, sources: list[Any], weights: list[float], seed: int, packing: bool) -> Any:
        """Return the encoded records in rows of `sequence_length` positions."""

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the base's shape and the number of steps."""
        recipe = super().resolve(recipe)
        return replace(recipe, train=replace(recipe.train, steps=self.steps))

    def describe(self) -> list[str]:
        """Return the warnings, and the size of the data."""
        heldout = sum(len(rows.items) for rows in self.heldout_rows.values())
        return [
            *self.warnings,
            f"{self.data_location}: {self.dataset.packing_stats()}; "
            f"{heldout:,} {self.dataset.item_name} held out",
        ]

    def _count_steps(self, recipe: Recipe, notify: Notify) -> int:
        """Return the steps of `data.epochs` epochs, or those of the recipe where that is 0."""
        epochs, steps = recipe.tuning_data.epochs, recipe.train.steps
        if not epochs:
            return steps
        rows = self.dataset.sampler.epoch_size
        rows_per_step = max(recipe.train.tokens_per_step // self.sequence_length, 1)
        counted = max(math.ceil(epochs * rows / rows_per_step), 1)
        if counted != steps:
            notify(
                f"{epochs:g} epochs of {rows:,} rows are {counted:,} steps (data.epochs sets the "
                f"number; data.epochs 0 uses train.steps)"
            )
        return counted


def _fingerprint_examples(parts: Iterable[Iterable[Any]]) -> str:
    """Hash all examples: their tokens, their loss masks, and which belong together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"part")
        examples: Iterable[Example] = (example for item in part for example in item.examples)
        for example in examples:
            digest.update(len(example.ids).to_bytes(4, "little"))
            digest.update(example.ids.tobytes())
            digest.update(example.loss_mask.tobytes())
    return digest.hexdigest()
