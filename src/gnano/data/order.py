"""Which sequence is sample i? A pure function, so that nothing needs to be remembered.

A mix of weighted sources is dealt in blocks of `BLOCK` samples. Every block holds each
source in its exact share (largest remainders settle the fractions), in an order drawn
from (seed, block). Within a source the sequences of one shard follow one another in an
order drawn from (seed, source, epoch, shard): reading stays local, and a shard that does
not exist yet cannot change what came before it.

    sample(i) ──block──▶ source s, its k-th sequence ──shard──▶ (epoch, shard, row)

A step takes the next samples, whoever computes them: see `samples_of`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

BLOCK = 1_000
DECKS, ROWS = 1, 2  # what is drawn: keeps the two kinds of draws apart for any seed

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


class Place(NamedTuple):
    """Where a sample lies."""

    source: int
    epoch: int  # how often the source was walked through before
    shard: int
    row: int  # which sequence of the shard


def shares(weights: Sequence[float], block: int = BLOCK) -> list[int]:
    """How many samples of a block each source gets: exact in sum, closest in proportion."""
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * block
    whole = np.floor(exact).astype(int)
    for source in np.argsort(whole - exact, kind="stable")[: block - whole.sum()]:
        whole[source] += 1
    counts: list[int] = whole.tolist()
    return counts


class Order:
    """The order of one corpus: `rows[s][h]` sequences in shard h of source s."""

    def __init__(self, rows: list[list[int]], weights: Sequence[float], seed: int) -> None:
        self.seed = seed
        self.counts = tuple(shares(weights))
        self.ends = [list(accumulate(shards)) for shards in rows]

    def __call__(self, i: int) -> Place:
        block, place = divmod(i, BLOCK)
        sources, ranks = _deal(self.seed, block, self.counts)
        source = sources[place]
        k = block * self.counts[source] + ranks[place]
        ends = self.ends[source]
        epoch, rest = divmod(k, ends[-1])
        shard = bisect_right(ends, rest)
        start = ends[shard - 1] if shard else 0
        rows = permutation((ROWS, self.seed, source, epoch, shard), ends[shard] - start)
        return Place(source, epoch, shard, int(rows[rest - start]))


@lru_cache(maxsize=16)
def _deal(seed: int, block: int, counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """For each place of a block: its source, and how many of that source came before."""
    deck = np.repeat(np.arange(len(counts)), counts)
    deck = deck[permutation((DECKS, seed, block), len(deck))]
    ranks = np.empty_like(deck)
    for source, count in enumerate(counts):
        ranks[deck == source] = np.arange(count)
    # lists: they are read one entry at a time, at which arrays are slow
    return deck.tolist(), ranks.tolist()


@lru_cache(maxsize=64)
def permutation(key: tuple[int, ...], n: int) -> Ints:
    """0 … n-1 in an order drawn from the key, the same in every version of NumPy."""
    # NumPy promises the raw stream of a bit generator for ever, but not `shuffle`'s use of it
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)
    return np.argsort(raw, kind="stable")


def samples_of(
    step: int, micro: int, rank: int, *, per_step: int, micro_batch: int, ranks: int
) -> range:
    """The samples one rank takes in one micro-step.

    A step is always samples [step · per_step, (step + 1) · per_step), so the number of
    ranks and the size of a micro-batch change who computes a sample, never which is next.
    """
    start = step * per_step + (micro * ranks + rank) * micro_batch
    return range(start, start + micro_batch)
