"""What does the loop learn from? Rows by sample number, and something held out to measure by.

    [data] of texts          ─▶ Texts           token shards, held-out documents
    [data] of instructions   ─▶ Instructions    answers to questions, packed
    [data] of preferences    ─▶ Preferences     pairs of answers, packed

The loop knows no more of them than what stands here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gnano.data import AnyBatch, DataConfig
from gnano.data.instructions import Template
from gnano.model import GPT
from gnano.tokenizer import Tokenizer
from gnano.train.base import Base
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say


class Rows(Protocol):
    """Batches by sample number."""

    @property
    def length(self) -> int: ...

    def lacking(self, samples: Sequence[int]) -> str | None:
        """What these samples wait for; None: they are here."""

    def batch(self, samples: Sequence[int]) -> AnyBatch: ...


class Loss(Protocol):
    @property
    def value(self) -> float:
        """What tells which of two checkpoints is better: the lower, the better."""

    def as_dict(self) -> dict[str, Any]: ...


class Measure(Protocol):
    """What is held out."""

    def __bool__(self) -> bool: ...

    def covers(self, tokens: int) -> bool:
        """Does a measurement of so many tokens take all there are?"""

    def lacking(self, tokens: int) -> str | None:
        """What a measurement of so many tokens waits for."""

    def loss(self, model: GPT, tokens: int | None, stop: Callable[[], bool]) -> Loss: ...


class Lessons(Protocol):
    @property
    def where(self) -> str:
        """Where its data lies, for messages."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that is learned from."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def template(self) -> Template | None:
        """How a question looks; None where nothing is asked."""

    @property
    def base(self) -> Base | None:
        """What the run begins with; None: with the weights of its seed."""

    @property
    def growing(self) -> bool:
        """Is some of it still to come?"""

    @property
    def rows(self) -> Rows: ...

    def about(self) -> list[str]:
        """What there is to say before the first step."""

    def check(self, recipe: Recipe) -> None:
        """Raises ValueError where the recipe does not fit the data."""

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:
        """What has to be computed before the first step."""

    def measure(self, recipe: Recipe, world: World) -> Measure: ...


def open_lessons(recipe: Recipe, run: Path, world: World, say: Say) -> tuple[Recipe, Lessons]:
    """What the recipe learns from, and the recipe with what follows from that.

    Raises ValueError or OSError where it is not there or cannot be used.
    """
    if isinstance(recipe.data, DataConfig):
        from gnano.train.lessons.texts import open_texts

        return open_texts(recipe, run, world)
    if recipe.data.kind == "preferences":
        from gnano.train.lessons.preferences import open_preferences

        return open_preferences(recipe, run, world, say)
    from gnano.train.lessons.instructions import open_instructions

    return open_instructions(recipe, run, world, say)
