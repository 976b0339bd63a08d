"""Examples in rows, of which the answers are learned.

A row has T positions, and each of its examples is a segment, which sees nothing of others:

    inputs    p p p a a a │ p p a a │ 0 0        p prompt, a answer, 0 padding
    targets   · · a a a e │ · a a e │ · ·        e end-of-text, · not learned
    segments  0 0 0 0 0 0 │ 1 1 1 1 │ 2 2
"""

from collections.abc import Sequence

import numpy as np
import torch

from gnano.data.batches import IGNORE, Batch
from gnano.data.instructions.encoding import Example, fitted
from gnano.data.instructions.packed_rows import PackedRows


class InstructionRows(PackedRows[Example, Batch]):
    """Rows of `length` positions; with `packing` off, each has one example."""

    def __init__(
        self,
        sources: Sequence[Sequence[Example]],
        weights: Sequence[float],
        length: int,
        seed: int,
        packing: bool = True,
    ) -> None:
        fitting = ((fitted(example, length) for example in source) for source in sources)
        super().__init__(fitting, weights, length, seed, packing, "examples")

    def of_rows(self, rows: Sequence[Sequence[int]]) -> Batch:
        shape = len(rows), self.length
        inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        segments = np.zeros(shape, np.int32)
        for number, row in enumerate(rows):
            start = 0
            for segment, index in enumerate(row):
                ids, learned, _ = self.items[index]
                part = slice(start, start + len(ids) - 1)
                inputs[number, part] = ids[:-1]
                targets[number, part] = np.where(learned[1:], ids[1:], IGNORE)
                segments[number, part] = segment
                start = part.stop
            segments[number, start:] = len(row)
        return Batch(*map(torch.from_numpy, (inputs, targets, segments)))
