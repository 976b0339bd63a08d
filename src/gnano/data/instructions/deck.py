"""The order of rows by epochs: a pure function from a sample's number to (epoch, source, row).

A source's weight is how many times its rows come in an epoch. Each epoch is shuffled anew:

    weights 2, 1, ½     epoch    every row of a twice, of b once, and half the rows of c;
                                 the next epoch has the other half of c
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gnano.data.order import EPOCH_STREAM, EXAMPLE_STREAM, shuffled_indices


class EpochSampler:
    """The epochs of sources that have `rows` rows each."""

    def __init__(self, row_counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.row_counts, self.seed = list(row_counts), seed
        # rows of each source in an epoch; a source with weight is never left out
        self.rows_per_epoch = [
            max(round(count * weight), 1) if count and weight else 0
            for count, weight in zip(row_counts, weights, strict=True)
        ]
        self.epoch_size = sum(self.rows_per_epoch)  # rows an epoch
        if not self.epoch_size:
            raise ValueError(
                "There is no row to learn from: give a source with records a weight above 0."
            )
        self._cached_epoch = lru_cache(maxsize=2)(self._shuffle_epoch)

    def locate(self, sample: int) -> tuple[int, int, int]:
        """Return the epoch, source and row of a sample."""
        epoch, position = divmod(sample, self.epoch_size)
        source, row = self._cached_epoch(epoch)[position]
        return epoch, int(source), int(row)

    def _shuffle_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return all (source, row) of an epoch, in its order."""
        parts = []
        for source, (rows, share) in enumerate(
            zip(self.row_counts, self.rows_per_epoch, strict=True)
        ):
            if share:
                # the source's rows pass by again and again, each time in another order
                first, last = divmod(epoch * share, rows), (epoch + 1) * share
                passes = range(first[0], -(-last // rows))
                orders = [
                    shuffled_indices((EPOCH_STREAM, self.seed, source, number), rows)
                    for number in passes
                ]
                taken = np.concatenate(orders)[first[1] :][:share]
                parts.append(np.stack([np.full(share, source), taken], 1))
        pairs = np.concatenate(parts)
        return pairs[shuffled_indices((EXAMPLE_STREAM, self.seed, epoch), len(pairs))]
