"""Which row is sample i? A pure function of the numbers of rows, the weights, the seed and i.

A source's weight is how many times its rows come in an epoch. Each epoch takes them all, shuffled:

    weights 2, 1, ½     epoch    every row of a twice, of b once, and half the rows of c;
                                 the next epoch has the other half of c
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gnano.data.order import CARDS, LAPS, shuffled


class Deck:
    """`rows` are the numbers of rows of the sources."""

    def __init__(self, rows: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.rows, self.weights, self.seed = list(rows), list(weights), seed
        self.size = sum(self._share(source) for source in range(len(rows)))  # rows an epoch
        if not self.size:
            raise ValueError(
                "There is no row to learn from: give a source with records a weight above 0."
            )
        self._dealt = lru_cache(maxsize=2)(self._deal)

    def __call__(self, sample: int) -> tuple[int, int, int]:
        """Epoch, source and row."""
        epoch, place = divmod(sample, self.size)
        source, row = self._dealt(epoch)[place]
        return epoch, int(source), int(row)

    def _share(self, source: int) -> int:
        """How many rows an epoch takes from a source; one that has weight is never left out."""
        rows, weight = self.rows[source], self.weights[source]
        return max(round(rows * weight), 1) if rows and weight else 0

    def _deal(self, epoch: int) -> NDArray[np.int64]:
        """All (source, row) of an epoch, in its order."""
        parts = []
        for source, rows in enumerate(self.rows):
            share = self._share(source)
            if share:
                taken = np.arange(epoch * share, (epoch + 1) * share)
                parts.append(np.stack([np.full(share, source), self._rows(source, taken, rows)], 1))
        cards = np.concatenate(parts)
        return cards[shuffled((CARDS, self.seed, epoch), len(cards))]

    def _rows(self, source: int, taken: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        """The n-th row that is taken from a source, lap after lap, each in an order of its own."""
        laps, places = np.divmod(taken, rows)
        orders = {
            int(lap): shuffled((LAPS, self.seed, source, int(lap)), rows) for lap in np.unique(laps)
        }
        return np.array([orders[int(lap)][at] for lap, at in zip(laps, places, strict=True)])
