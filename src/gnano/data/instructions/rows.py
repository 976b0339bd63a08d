"""Rows of examples, or of pairs of answers, in which only the answers are learned.

A row has T positions, and each of its examples is a segment, which sees nothing of others:

    inputs    p p p a a a │ p p a a │ 0 0        p prompt, a answer, 0 padding
    targets   · · a a a e │ · a a e │ · ·        e end-of-text, · not learned
    segments  0 0 0 0 0 0 │ 1 1 1 1 │ 2 2

A pair lies whole in one row, as two segments with the same prompt, so that its loss needs no
other row. The items of each source are packed once; each epoch has the rows in an order of its
own (see `deck`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from gnano.data.batches import IGNORE, Batch
from gnano.data.instructions.deck import Deck
from gnano.data.instructions.encoding import Example, Pair
from gnano.data.instructions.packs import first_fit
from gnano.data.instructions.preference_batch import PreferenceBatch

ItemT = TypeVar("ItemT", bound=Example | Pair)
BatchT = TypeVar("BatchT", bound=Batch | PreferenceBatch)


class PackedRows(ABC, Generic[ItemT, BatchT]):
    """Rows of `length` positions; with `packing` off, each has one item."""

    called: str  # what a person calls the items

    def __init__(
        self,
        sources: Sequence[Sequence[ItemT]],
        weights: Sequence[float],
        length: int,
        seed: int,
        packing: bool = True,
    ) -> None:
        self.length = length
        self.items: list[ItemT] = []
        self.rows: list[list[int]] = []  # of numbers of items, source by source
        counts = []
        for source in sources:
            first = len(self.items)
            self.items += cast("list[ItemT]", [item.truncate(length) for item in source])
            sizes = [item.positions for item in self.items[first:]]
            rows = first_fit(sizes, length) if packing else [[i] for i in range(len(sizes))]
            self.rows += ([first + i for i in row] for row in rows)
            counts.append(len(rows))
        self.starts = [0, *accumulate(counts)]
        self.deck = Deck(counts, weights, seed)

    @abstractmethod
    def of_rows(self, rows: Sequence[Sequence[int]]) -> BatchT:
        """Return the batch of these items, by their numbers, a row each."""

    def batch(self, samples: Sequence[int]) -> BatchT:
        return self.of_rows([self.rows[self.place(sample)[1]] for sample in samples])

    def place(self, sample: int) -> tuple[int, int]:
        """Return the epoch and the row of a sample."""
        epoch, source, row = self.deck.locate(sample)
        return epoch, self.starts[source] + row

    def lacking(self, samples: Sequence[int]) -> str | None:
        """Return what these samples wait for: nothing."""
        return None

    def waste(self) -> str:
        """Say how full the rows are, and what had to be cut."""
        room = len(self.rows) * self.length
        used = sum(item.positions for item in self.items)
        examples = [example for item in self.items for example in item.examples]
        learned = sum(int(example.learned[1:].sum()) for example in examples)
        cut = sum(item.cut for item in self.items)
        return (
            f"{len(self.items):,} {self.called} in {len(self.rows):,} rows of {self.length:,}: "
            f"{1 - used / room:.1%} padding, {used:,} tokens used, {learned:,} of them answers, "
            f"{cut:,} {self.called} cut"
        )

    def _lay_out(
        self, rows: Sequence[Sequence[int]]
    ) -> tuple[tuple[NDArray[Any], ...], list[tuple[int, slice]]]:
        """Return inputs, targets and segments [B, T], and where each example lies in them."""
        shape = len(rows), self.length
        inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        segments = np.zeros(shape, np.int32)
        places = []
        for number, row in enumerate(rows):
            start = segment = 0
            for ids, learned, _ in (example for i in row for example in self.items[i].examples):
                place = number, slice(start, start + len(ids) - 1)
                inputs[place] = ids[:-1]
                targets[place] = np.where(learned[1:], ids[1:], IGNORE)
                segments[place] = segment
                start, segment = place[1].stop, segment + 1
                places.append(place)
            segments[number, start:] = segment
        return (inputs, targets, segments), places


class InstructionRows(PackedRows[Example, Batch]):
    """Rows of `length` positions; with `packing` off, each has one example."""

    called = "examples"

    def of_rows(self, rows: Sequence[Sequence[int]]) -> Batch:
        arrays, _ = self._lay_out(rows)
        return Batch(*map(torch.from_numpy, arrays))


class PairRows(PackedRows[Pair, PreferenceBatch]):
    """Rows of `length` positions; with `packing` off, each has one pair.

    `reference` holds each pair's margin under the reference model, in the order of `items`; it is
    0 until someone has measured it.
    """

    called = "pairs"

    def __init__(
        self,
        sources: Sequence[Sequence[Pair]],
        weights: Sequence[float],
        length: int,
        seed: int,
        beta: float,
        packing: bool = True,
    ) -> None:
        super().__init__(sources, weights, length, seed, packing)
        self.beta = beta
        self.reference: NDArray[np.float32] = np.zeros(len(self.items), np.float32)

    def of_rows(self, rows: Sequence[Sequence[int]]) -> PreferenceBatch:
        arrays, places = self._lay_out(rows)
        targets = arrays[1]
        pairs, signs = np.zeros_like(targets), np.zeros(targets.shape, np.float32)
        for number, place in enumerate(places):  # chosen and rejected take turns
            learned = targets[place] != IGNORE
            pairs[place] = learned * (number // 2)
            signs[place] = learned * (-1 if number % 2 else 1)
        reference = self.reference[[index for row in rows for index in row]]
        more = pairs, signs, reference, np.float32(self.beta)
        return PreferenceBatch(*map(torch.as_tensor, (*arrays, *more)))
