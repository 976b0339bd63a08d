"""The base: the model whose weights a run starts with, instead of random ones.

A new run records the base's folder and the hash of its weights. So a run that has no checkpoint yet
starts with the same weights again, whatever became of the folder that its user named.

Training tasks: what a run trains on, and what it is evaluated on.

    [data] of texts          ─▶ Texts           token shards, held-out documents
    [data] of instructions   ─▶ Instructions    packed answers to questions
    [data] of preferences    ─▶ Preferences     packed pairs of answers

Instructions and preferences tune a base: they take its model shape and tokenizer, perhaps its
chat template, and count their steps in epochs.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gnano.checkpoint.format import list_checkpoints
from gnano.config.data_config import InstructionConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, Example, load_template, read_template
from gnano.data.sft.record_loading import SplitRecords
from gnano.data.sft.sft_dataset import PreferenceDataset, SFTDataset, TrainingDataset
from gnano.data.source_files import resolve_source_files
from gnano.model.hf_io import load_config
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.base_checkpoint import BaseCheckpoint
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import HeldoutSet, eval_mode, sum_over_ranks


class EvalResult(Protocol):
    @property
    def objective(self) -> float:
        """The number that checkpoints are compared by; lower is better."""

    def to_metrics(self) -> dict[str, Any]:
        """Return the metrics for the log."""


class TrainingTask(ABC):
    data_location: str  # where the data is stored, for messages
    fingerprint: str  # of all data
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None = None
    base: BaseCheckpoint | None  # None: the run starts with random weights
    base_config: ModelConfig | None  # that of the base
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

    def prepare(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> None:  # noqa: B027
        """Compute what has to be there before the first step."""

    @abstractmethod
    def build_heldout(self, recipe: Recipe, world: DistContext) -> "HeldoutSet | HeldoutExamples":
        """Return the held-out data, ready to be evaluated."""


class TuningTask(TrainingTask):
    """What tuning on instructions and on preferences have in common."""

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
        """Raises ValueError or OSError where there is no base, or none that can be tuned."""
        if base is None:
            raise ValueError(
                "Tuning begins with a model: name a run, a checkpoint or a Hugging Face folder "
                "(--from, or train.init_from)."
            )
        # a run that has checkpoints resumes without its base (unless it trains an adapter of it)
        folder = next((f for f in [base.folder, *list_checkpoints(run)] if f.is_dir()), None)
        if folder is None:
            raise ValueError(base.missing_message)
        config = recipe.tuning_data
        template = load_template(config.template) if config.template else read_template(folder)
        self.base, self.chat_template = base, template or ALPACA
        self.base_config, self.tokenizer = load_config(folder), Tokenizer.load(folder)
        self.sequence_length, self.beta = self.base_config.block_size, recipe.train.dpo_beta
        self.data_location = ", ".join(source.location for source in config.sources.values())
        # rank 0 downloads for all that share its disk; the others find the files
        world.set_phase("bringing the Hub's files", math.inf)
        for source in config.sources.values():
            world.run_on_main(
                partial(
                    resolve_source_files,
                    source,
                    Path(config.cache_dir),
                    partial(notify, waiting=True),
                )
            )
        records = self.load_records(config)
        self.warnings = records.warnings
        train, heldout = (
            {name: [self.encode(one) for one in found] for name, found in part.items()}
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
        """Return the encoded records in rows of `length` positions."""

    def resolve(self, recipe: Recipe) -> Recipe:
        recipe = super().resolve(recipe)
        return replace(recipe, train=replace(recipe.train, steps=self.steps))

    def describe(self) -> list[str]:
        held, called = (
            sum(len(rows.items) for rows in self.heldout_rows.values()),
            self.dataset.item_name,
        )
        return [
            *self.warnings,
            f"{self.data_location}: {self.dataset.packing_stats()}; {held:,} {called} held out",
        ]

    def _count_steps(self, recipe: Recipe, notify: Notify) -> int:
        """The steps of `data.epochs` epochs, or those of the recipe where that is 0."""
        epochs, settings, rows = (
            recipe.tuning_data.epochs,
            recipe.train,
            self.dataset.sampler.epoch_size,
        )
        if not epochs:
            return settings.steps
        rows_per_step = max(settings.tokens_per_step // self.sequence_length, 1)
        steps = max(math.ceil(epochs * rows / rows_per_step), 1)
        if steps != settings.steps:
            notify(
                f"{epochs:g} epochs of {rows:,} rows are {steps:,} steps (data.epochs decides; "
                f"0 leaves it to train.steps)"
            )
        return steps


def _fingerprint_examples(parts: Iterable[Iterable[Any]]) -> str:
    """Hash all examples, which tokens count in the loss, and which belong together."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"part")
        examples: Iterable[Example] = (example for item in part for example in item.examples)
        for example in examples:
            hashed.update(len(example.ids).to_bytes(4, "little"))
            hashed.update(example.ids.tobytes())
            hashed.update(example.loss_mask.tobytes())
    return hashed.hexdigest()


@dataclass(frozen=True)
class CategoryLoss:
    """Sums over the held-out examples of each category; the subclass says of what."""

    sums: dict[str, list[float]]

    def total(self, column: int) -> float:
        return sum(sums[column] for sums in self.sums.values())


class HeldoutExamples:
    """The held-out rows of each category; every evaluation covers all of them."""

    def __init__(
        self,
        rows_by_category: Mapping[str, Any],
        batch_size: int,
        world: DistContext,
        sum_batch: Callable[[GPT, Any], Tensor],
        build_result: Callable[[dict[str, list[float]]], EvalResult],
    ) -> None:
        self.rows_by_category, self.batch_size, self.world = (
            dict(sorted(rows_by_category.items())),
            batch_size,
            world,
        )
        self.sum_batch, self.build_result = sum_batch, build_result

    def __bool__(self) -> bool:
        return bool(self.rows_by_category)

    def is_covered_by(self, tokens: int) -> bool:
        return True

    def missing(self, tokens: int) -> str | None:
        return None

    def evaluate(
        self, model: GPT, tokens: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> EvalResult:
        """Raises CutShortError where `stop` returns True on any of the ranks."""
        sums = {}
        with eval_mode(model):
            for name, rows in self.rows_by_category.items():
                groups = range(0, len(rows.rows), self.batch_size)
                batches = (rows.of_rows(rows.rows[at : at + self.batch_size]) for at in groups)
                work, empty = partial(self.sum_batch, model), rows.collate([[]])
                sums[name] = sum_over_ranks(
                    work, batches, len(groups), empty, self.world, should_stop
                )
        return self.build_result(sums)
