"""Which examples are in sample i? A pure function, as everywhere: of the examples, seed and i.

The items of each source, examples or pairs of them, are packed once into rows of T positions; each
epoch deals the rows in an order of its own (see `deck`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from gnano.data.instructions.deck import Deck
from gnano.data.instructions.encoding import Example
from gnano.data.instructions.packs import first_fit


class Item(Protocol):
    @property
    def cut(self) -> bool:
        """Is something of it missing?"""
        ...

    @property
    def positions(self) -> int:
        """What it takes in a row."""
        ...

    @property
    def examples(self) -> Sequence[Example]:
        """What it is made of."""
        ...


K = TypeVar("K", bound=Item)  # the kind of item
B = TypeVar("B")  # the kind of batch


class PackedRows(ABC, Generic[K, B]):
    """Rows of `length` positions; with `packing` off, each has one item.

    The items of each source fit a row; `called` is what a person calls them.
    """

    def __init__(
        self,
        sources: Iterable[Iterable[K]],
        weights: Sequence[float],
        length: int,
        seed: int,
        packing: bool,
        called: str,
    ) -> None:
        self.length, self.called = length, called
        self.items: list[K] = []
        self.rows: list[list[int]] = []  # of numbers of items, source by source
        counts = []
        for source in sources:
            first = len(self.items)
            self.items += source
            sizes = [item.positions for item in self.items[first:]]
            rows = first_fit(sizes, length) if packing else [[i] for i in range(len(sizes))]
            self.rows += ([first + i for i in row] for row in rows)
            counts.append(len(rows))
        self.starts = [0, *accumulate(counts)]
        self.deck = Deck(counts, weights, seed)

    @abstractmethod
    def of_rows(self, rows: Sequence[Sequence[int]]) -> B:
        """These items, by their numbers, a row each."""

    def batch(self, samples: Sequence[int]) -> B:
        return self.of_rows([self.rows[self.place(sample)[1]] for sample in samples])

    def place(self, sample: int) -> tuple[int, int]:
        """Epoch and row of a sample."""
        epoch, source, row = self.deck(sample)
        return epoch, self.starts[source] + row

    def lacking(self, samples: Sequence[int]) -> str | None:
        """What these samples wait for: nothing."""
        return None

    def waste(self) -> str:
        """How full the rows are, and what had to be cut."""
        room = len(self.rows) * self.length
        used = sum(item.positions for item in self.items)
        parts = [example for item in self.items for example in item.examples]
        learned = sum(int(example.learned[1:].sum()) for example in parts)
        cut = sum(item.cut for item in self.items)
        return (
            f"{len(self.items):,} {self.called} in {len(self.rows):,} rows of {self.length:,}: "
            f"{1 - used / room:.1%} padding, {used:,} tokens used, {learned:,} of them answers, "
            f"{cut:,} {self.called} cut"
        )
