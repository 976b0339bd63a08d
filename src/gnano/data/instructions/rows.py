"""Which examples are in sample i? A pure function, as everywhere: of the examples, seed and i.

The examples of each source are packed once; each epoch deals the rows in an order of its own (see
`deck`). A row has T positions, and each of its examples is a segment, which sees nothing of others:

    inputs    p p p a a a │ p p a a │ 0 0        p prompt, a answer, 0 padding
    targets   · · a a a e │ · a a e │ · ·        e end-of-text, · not learned
    segments  0 0 0 0 0 0 │ 1 1 1 1 │ 2 2
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from gnano.data.batches import IGNORE, Batch
from gnano.data.instructions.deck import Deck
from gnano.data.instructions.encoding import Example, fitted
from gnano.data.instructions.packs import first_fit


class InstructionRows:
    """Rows of `length` positions; with `packing` off, each has one example."""

    def __init__(
        self,
        sources: Sequence[Sequence[Example]],
        weights: Sequence[float],
        length: int,
        seed: int,
        packing: bool = True,
    ) -> None:
        self.length = length
        self.examples: list[Example] = []
        self.rows: list[list[int]] = []  # of numbers of examples, source by source
        counts = []
        for source in sources:
            first = len(self.examples)
            self.examples += (fitted(example, length) for example in source)
            sizes = [example.positions for example in self.examples[first:]]
            rows = first_fit(sizes, length) if packing else [[i] for i in range(len(sizes))]
            self.rows += ([first + i for i in row] for row in rows)
            counts.append(len(rows))
        self.starts = [0, *accumulate(counts)]
        self.deck = Deck(counts, weights, seed)

    def lacking(self, samples: Sequence[int]) -> str | None:
        """What these samples wait for: nothing."""
        return None

    def place(self, sample: int) -> tuple[int, int]:
        """Epoch and row of a sample."""
        epoch, source, row = self.deck(sample)
        return epoch, self.starts[source] + row

    def batch(self, samples: Sequence[int]) -> Batch:
        return self.of_rows([self.rows[self.place(sample)[1]] for sample in samples])

    def of_rows(self, rows: Sequence[Sequence[int]]) -> Batch:
        """These examples, by their numbers, a row each."""
        shape = len(rows), self.length
        inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        segments = np.zeros(shape, np.int32)
        for number, row in enumerate(rows):
            start = 0
            for segment, index in enumerate(row):
                ids, learned, _ = self.examples[index]
                part = slice(start, start + len(ids) - 1)
                inputs[number, part] = ids[:-1]
                targets[number, part] = np.where(learned[1:], ids[1:], IGNORE)
                segments[number, part] = segment
                start = part.stop
            segments[number, start:] = len(row)
        return Batch(*map(torch.from_numpy, (inputs, targets, segments)))

    def waste(self) -> str:
        """How full the rows are, and what had to be cut."""
        room = len(self.rows) * self.length
        used = sum(example.positions for example in self.examples)
        learned = sum(int(example.learned[1:].sum()) for example in self.examples)
        cut = sum(example.cut for example in self.examples)
        return (
            f"{len(self.examples):,} examples in {len(self.rows):,} rows of {self.length:,}: "
            f"{1 - used / room:.1%} padding, {used:,} tokens used, {learned:,} of them answers, "
            f"{cut:,} examples cut"
        )
