"""Instruction tuning: questions and answers, of which the answers are learned."""

from collections.abc import Iterable
from pathlib import Path

from gnano.data.instructions import (
    Conversation,
    Example,
    Gathered,
    InstructionRows,
    encode,
    gather_conversations,
)
from gnano.train.lessons.answers import HeldoutAnswers
from gnano.train.lessons.tuning import Start, bring, fingerprint, start, with_epochs
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe
from gnano.train.waiting import Say


class Instructions:
    growing = False

    def __init__(self, begun: Start, gathered: Gathered[Conversation]) -> None:
        recipe = begun.recipe
        config = recipe.instructions
        self.base, self.tokenizer, self.template = begun.base, begun.tokenizer, begun.template
        self.where = ", ".join(source.where for source in config.sources.values())
        self.complaints = gathered.complaints
        train = {name: self._encoded(found) for name, found in gathered.train.items()}
        self.heldout = {name: self._encoded(found) for name, found in gathered.heldout.items()}
        weights = [config.sources[name].weight for name in train]
        length = recipe.model.block_size
        self.rows = InstructionRows(
            list(train.values()), weights, length, config.seed, config.packing
        )
        self.fingerprint = fingerprint([*train.values(), *self.heldout.values()])

    def about(self) -> list[str]:
        held = sum(len(found) for found in self.heldout.values())
        return [
            *self.complaints,
            f"{self.where}: {self.rows.waste()}; {held:,} examples held out",
        ]

    def check(self, recipe: Recipe) -> None:
        """Shape, tokenizer and template are those of the base."""

    def prepare(self, recipe: Recipe, run: Path, world: World, say: Say) -> None:
        """Nothing: the rows are whole."""

    def measure(self, recipe: Recipe, world: World) -> HeldoutAnswers:
        return HeldoutAnswers(
            self.heldout,
            self.rows.length,
            recipe.train.micro_batch,
            self.tokenizer.token_bytes,
            world,
        )

    def _encoded(self, conversations: Iterable[Conversation]) -> list[Example]:
        return [encode(one, self.template, self.tokenizer) for one in conversations]


def open_instructions(
    recipe: Recipe, run: Path, world: World, say: Say
) -> tuple[Recipe, Instructions]:
    begun = start(recipe, run, world)
    bring(recipe.instructions, world, say)
    lessons = Instructions(begun, gather_conversations(recipe.instructions))
    return with_epochs(begun.recipe, lessons.rows.deck.size, say), lessons
