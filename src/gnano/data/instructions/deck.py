"""The order of rows by epochs: a pure function from a sample's number to (epoch, source, row).

A source's weight is how many times its rows come in an epoch. Each epoch is shuffled anew:

    weights 2, 1, ½     epoch    every row of a twice, of b once, and half the rows of c;
                                 the next epoch has the other half of c
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gnano.data.order import CARDS, LAPS, shuffled


class Deck:
    """The epochs of sources that have `rows` rows each."""

    def __init__(self, rows: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.rows, self.seed = list(rows), seed
        # rows of each source in an epoch; a source with weight is never left out
        self.shares = [
            max(round(count * weight), 1) if count and weight else 0
            for count, weight in zip(rows, weights, strict=True)
        ]
        self.size = sum(self.shares)  # rows an epoch
        if not self.size:
            raise ValueError(
                "There is no row to learn from: give a source with records a weight above 0."
            )
        self._epoch = lru_cache(maxsize=2)(self._shuffle_epoch)

    def locate(self, sample: int) -> tuple[int, int, int]:
        """Return the epoch, source and row of a sample."""
        epoch, position = divmod(sample, self.size)
        source, row = self._epoch(epoch)[position]
        return epoch, int(source), int(row)

    def _shuffle_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return all (source, row) of an epoch, in its order."""
        parts = []
        for source, (rows, share) in enumerate(zip(self.rows, self.shares, strict=True)):
            if share:
                # the source's rows pass by again and again, each time in another order
                first, last = divmod(epoch * share, rows), (epoch + 1) * share
                passes = range(first[0], -(-last // rows))
                orders = [shuffled((LAPS, self.seed, source, number), rows) for number in passes]
                taken = np.concatenate(orders)[first[1] :][:share]
                parts.append(np.stack([np.full(share, source), taken], 1))
        pairs = np.concatenate(parts)
        return pairs[shuffled((CARDS, self.seed, epoch), len(pairs))]
