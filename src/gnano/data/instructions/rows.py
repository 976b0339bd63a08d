"""Which examples are in sample i? A pure function, as everywhere: of the examples, seed and i.

Examples are packed once; each epoch deals all rows in an order of its own. A row has T
positions, and each of its examples is a segment, which sees nothing of the others:

    inputs    p p p a a a │ p p a a │ 0 0        p prompt, a answer, 0 padding
    targets   · · a a a e │ · a a e │ · ·        e end-of-text, · not learned
    segments  0 0 0 0 0 0 │ 1 1 1 1 │ 2 2
"""

from collections.abc import Sequence

import numpy as np
import torch

from gnano.data.batches import IGNORE, Batch
from gnano.data.instructions.encoding import Example, fitted
from gnano.data.instructions.packs import first_fit


class InstructionRows:
    """Rows of `length` positions; with `packing` off, each has one example."""

    def __init__(
        self, examples: Sequence[Example], length: int, seed: int, packing: bool = True
    ) -> None:
        if not examples:
            raise ValueError("There is no example to learn from.")
        self.length, self.seed = length, seed
        self.examples = [fitted(example, length) for example in examples]
        sizes = [example.positions for example in self.examples]
        self.rows = first_fit(sizes, length) if packing else [[i] for i in range(len(sizes))]

    def lacking(self, samples: Sequence[int]) -> str | None:
        """What these samples wait for: nothing."""
        return None

    def place(self, sample: int) -> tuple[int, int]:
        """Epoch and row of a sample."""
        epoch, place = divmod(sample, len(self.rows))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        return epoch, int(order[place])

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
