"""Training tasks: what a run trains on, and what it is evaluated on.

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

from gnano.data.batches import Batches
from gnano.data.instructions.config import InstructionConfig
from gnano.data.instructions.encoding import Example
from gnano.data.instructions.files import files_of
from gnano.data.instructions.gathering import Gathered
from gnano.data.instructions.rows import InstructionRows, PairRows
from gnano.data.instructions.templates import ALPACA, Template, load_template, template_of
from gnano.data.sources import DataConfig
from gnano.model.config import ModelConfig
from gnano.model.folder import read_config
from gnano.model.gpt import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.base import Base, base_of
from gnano.train.heldout import Heldout, add_up, evaluating
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.saving.folders import checkpoints
from gnano.train.waiting import Say

Rows = Batches | InstructionRows | PairRows


class Loss(Protocol):
    @property
    def value(self) -> float:
        """The number that checkpoints are compared by; lower is better."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics for the log."""


class Lessons(ABC):
    where: str  # where the data is stored, for messages
    fingerprint: str  # of all data
    tokenizer: Tokenizer
    template: Template | None = None
    base: Base | None  # None: the run starts with random weights
    shape: ModelConfig | None  # that of the base
    growing: bool = False  # whether `gnano prepare` is still adding data
    rows: Rows

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the values that follow from base and data.

        Raises ValueError where it does not fit the data.
        """
        if self.shape is None:
            return recipe
        return replace(recipe, model=replace(self.shape, dropout=recipe.model.dropout))

    @abstractmethod
    def about(self) -> list[str]:
        """Return the messages to show before the first step."""

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:  # noqa: B027
        """Compute what has to be there before the first step."""

    @abstractmethod
    def measure(self, recipe: Recipe, world: World) -> "Heldout | HeldoutExamples":
        """Return the held-out data, ready to be evaluated."""


class TuningTask(Lessons):
    """What tuning on instructions and on preferences have in common."""

    base: Base
    template: Template
    rows: InstructionRows | PairRows

    def __init__(
        self, recipe: Recipe, base: Base | None, run: Path, world: World, say: Say
    ) -> None:
        """Raises ValueError or OSError where there is no base, or none that can be tuned."""
        if base is None:
            raise ValueError(
                "Tuning begins with a model: name a run, a checkpoint or a Hugging Face folder "
                "(--from, or train.base)."
            )
        # a run that has checkpoints resumes without its base (unless it trains an adapter of it)
        folder = next((f for f in [base.folder, *checkpoints(run)] if f.is_dir()), None)
        if folder is None:
            raise ValueError(base.gone)
        config = recipe.instructions
        template = load_template(config.template) if config.template else template_of(folder)
        self.base, self.template = base, template or ALPACA
        self.shape, self.tokenizer = read_config(folder), Tokenizer.load(folder)
        self.length, self.beta = self.shape.block_size, recipe.train.beta
        self.where = ", ".join(source.where for source in config.sources.values())
        # rank 0 downloads for all that share its disk; the others find the files
        world.doing("bringing the Hub's files", math.inf)
        for source in config.sources.values():
            world.by_first(
                partial(files_of, source, Path(config.downloads), partial(say, waiting=True))
            )
        records = self.load_records(config)
        self.complaints = records.complaints
        train, heldout = (
            {name: [self.encode(one) for one in found] for name, found in part.items()}
            for part in (records.train, records.heldout)
        )
        weights = [config.sources[name].weight for name in train]
        self.rows = self.pack(list(train.values()), weights, config.seed, config.packing)
        self.heldout = {name: self.pack([part], [1.0], 0, True) for name, part in heldout.items()}
        self.fingerprint = _fingerprint([*train.values(), *heldout.values()])
        self.steps = self._count_steps(recipe, say)

    @abstractmethod
    def load_records(self, config: InstructionConfig) -> Gathered[Any]:
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

    def about(self) -> list[str]:
        held, called = sum(len(rows.items) for rows in self.heldout.values()), self.rows.called
        return [
            *self.complaints,
            f"{self.where}: {self.rows.waste()}; {held:,} {called} held out",
        ]

    def _count_steps(self, recipe: Recipe, say: Say) -> int:
        """The steps of `data.epochs` epochs, or those of the recipe where that is 0."""
        epochs, settings, rows = recipe.instructions.epochs, recipe.train, self.rows.deck.size
        if not epochs:
            return settings.steps
        rows_per_step = max(settings.tokens_per_step // self.length, 1)
        steps = max(math.ceil(epochs * rows / rows_per_step), 1)
        if steps != settings.steps:
            say(
                f"{epochs:g} epochs of {rows:,} rows are {steps:,} steps (data.epochs decides; "
                f"0 leaves it to train.steps)"
            )
        return steps


def _fingerprint(parts: Iterable[Iterable[Any]]) -> str:
    """Hash all examples, which tokens count in the loss, and which belong together."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"part")
        examples: Iterable[Example] = (example for item in part for example in item.examples)
        for example in examples:
            hashed.update(len(example.ids).to_bytes(4, "little"))
            hashed.update(example.ids.tobytes())
            hashed.update(example.learned.tobytes())
    return hashed.hexdigest()


@dataclass(frozen=True)
class SummedLoss:
    """Sums over the held-out examples of each category; the subclass says of what."""

    sums: dict[str, list[float]]

    def total(self, column: int) -> float:
        return sum(sums[column] for sums in self.sums.values())


class HeldoutExamples:
    """The held-out rows of each category; every evaluation covers all of them."""

    def __init__(
        self,
        rows: Mapping[str, Any],
        batch: int,
        world: World,
        cost: Callable[[GPT, Any], Tensor],
        result: Callable[[dict[str, list[float]]], Loss],
    ) -> None:
        self.rows, self.batch, self.world = dict(sorted(rows.items())), batch, world
        self.cost, self.result = cost, result

    def __bool__(self) -> bool:
        return bool(self.rows)

    def covers(self, tokens: int) -> bool:
        return True

    def lacking(self, tokens: int) -> str | None:
        return None

    def loss(
        self, model: GPT, tokens: int | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Loss:
        """Raises CutShortError where `stop` returns True on any of the ranks."""
        sums = {}
        with evaluating(model):
            for name, rows in self.rows.items():
                groups = range(0, len(rows.rows), self.batch)
                batches = (rows.of_rows(rows.rows[at : at + self.batch]) for at in groups)
                work, empty = partial(self.cost, model), rows.of_rows([[]])
                sums[name] = add_up(work, batches, len(groups), empty, self.world, stop)
        return self.result(sums)


def open_lessons(recipe: Recipe, run: Path, world: World, say: Say) -> Lessons:
    """Open the data that the recipe trains on, and its base.

    Raises ValueError or OSError where it is missing or cannot be used.
    """
    base = world.by_first(partial(base_of, recipe.train.base, run))
    if isinstance(recipe.data, DataConfig):
        from gnano.train.lessons.texts import Texts

        return Texts(recipe.corpus, recipe.model.block_size, base)
    if recipe.data.kind == "preferences":
        from gnano.train.lessons.preferences import Preferences

        return Preferences(recipe, base, run, world, say)
    from gnano.train.lessons.instructions import Instructions

    return Instructions(recipe, base, run, world, say)
