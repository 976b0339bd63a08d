"""The sample order: a pure function from sample number to (source, epoch, shard, row).

A mix of weighted sources is dealt in blocks of `BLOCK` samples. Every block holds each
source in its exact share (largest remainders settle the fractions), in an order drawn
from (seed, block). Within a source the sequences of one shard follow one another in an
order drawn from (seed, source, epoch, shard): reading stays local, and a shard that does
not exist yet cannot change what came before it.

    sample(i) ──block──▶ source s, its k-th sequence ──shard──▶ (epoch, shard, row)

A step takes the next samples, whoever computes them: see `samples_of`.

The order of rows by epochs: a pure function from a sample's number to (epoch, source, row).

A source's weight is how many times its rows come in an epoch. Each epoch is shuffled anew:

    weights 2, 1, ½     epoch    every row of a twice, of b once, and half the rows of c;
                                 the next epoch has the other half of c
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZE = 1_000
BLOCK_STREAM, ROW_STREAM, EXAMPLE_STREAM, EPOCH_STREAM = (
    1,
    2,
    3,
    4,
)  # what is drawn: keeps its kinds apart for any seed
FEISTEL_ROUNDS = 4  # of the Feistel network, each of two halves
MASK_64_BITS = 2**64 - 1


class SampleIndex(NamedTuple):
    """Where a sample lies."""

    source: int
    epoch: int  # how often the source was walked through before
    shard: int
    row: int  # which sequence of the shard


def block_counts(weights: Sequence[float], block: int = BLOCK_SIZE) -> list[int]:
    """How many samples of a block each source gets: exact in sum, closest in proportion."""
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * block
    whole = np.floor(exact).astype(int)
    for source in np.argsort(whole - exact, kind="stable")[: block - whole.sum()]:
        whole[source] += 1
    counts: list[int] = whole.tolist()
    return counts


class ShardNotReady(Exception):  # noqa: N818 - it is a state, not a mistake
    """The sample lies in a shard that is still being prepared."""

    def __init__(self, source: int, shard: int) -> None:
        super().__init__(source, shard)
        self.source, self.shard = source, shard


class MixtureSampler:
    """The order of one corpus: `rows[s][h]` sequences in shard h of source s.

    A source that is not `complete` may get more shards behind those it has.
    """

    def __init__(
        self,
        rows_per_shard: list[list[int]],
        weights: Sequence[float],
        seed: int,
        is_complete: Sequence[bool] | None = None,
    ) -> None:
        self.seed = seed
        self.block_counts = tuple(block_counts(weights))
        self.shard_ends = [list(accumulate(shards)) for shards in rows_per_shard]
        self.is_complete = is_complete or [True] * len(rows_per_shard)

    def locate(self, sample: int) -> SampleIndex:
        """Return where sample i is stored; raises NotYet if its shard is still being prepared."""
        block, place = divmod(sample, BLOCK_SIZE)
        sources, ranks = _shuffled_block(self.seed, block, self.block_counts)
        source = sources[place]
        k = block * self.block_counts[source] + ranks[place]
        ends = self.shard_ends[source]
        if not self.is_complete[source] and (not ends or k >= ends[-1]):
            raise ShardNotReady(source, len(ends))
        epoch, rest = divmod(k, ends[-1])
        shard = bisect_right(ends, rest)
        start = ends[shard - 1] if shard else 0
        row = feistel_permute(
            (ROW_STREAM, self.seed, source, epoch, shard), ends[shard] - start, rest - start
        )
        return SampleIndex(source, epoch, shard, row)


@lru_cache(maxsize=16)
def _shuffled_block(seed: int, block: int, counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """For each place of a block: its source, and how many of that source came before."""
    deck = np.repeat(np.arange(len(counts)), counts)
    deck = deck[shuffled_indices((BLOCK_STREAM, seed, block), len(deck))]
    ranks = np.empty_like(deck)
    for source, count in enumerate(counts):
        ranks[deck == source] = np.arange(count)
    # lists: they are read one entry at a time, at which arrays are slow
    return deck.tolist(), ranks.tolist()


def shuffled_indices(key: tuple[int, ...], n: int) -> NDArray[np.int64]:
    """The numbers 0 … n-1 in an order that is drawn from the key, the same with any NumPy."""
    # NumPy promises the raw stream of a bit generator for ever, but not `shuffle`'s use of it
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)
    return np.argsort(raw, kind="stable")


def feistel_permute(key: tuple[int, ...], n: int, index: int) -> int:
    """Where i goes in an order of 0 … n-1 that is drawn from the key.

    A Feistel network over a grid of about √n × √n cells: in each round one coordinate is
    shifted by a hash of the other, which can be undone, so no two places meet. The few cells
    past the end are passed through again until they fall inside (cycle walking; Black &
    Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """
    width = isqrt(n - 1) + 1 if n > 1 else 1
    height = -(-n // width)
    keys = _round_keys(key)
    while True:
        x, y = index % width, index // width
        for odd, even in keys:
            x = (x + _mix_bits(y, odd)) % width
            y = (y + _mix_bits(x, even)) % height
        index = y * width + x
        if index < n:
            return index


def _mix_bits(value: int, key: int) -> int:
    """A hash of 64 bits: the finalizer of SplitMix64 (Steele et al. 2014)."""
    z = (value * 0x9E3779B97F4A7C15 + key) & MASK_64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64_BITS
    return z ^ (z >> 31)


@lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> list[tuple[int, int]]:
    digest = blake2b(repr(key).encode(), digest_size=16 * FEISTEL_ROUNDS).digest()
    halves = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8)]
    return list(zip(halves[::2], halves[1::2], strict=True))


def rank_sample_range(
    step: int,
    micro_step: int,
    rank: int,
    *,
    samples_per_step: int,
    micro_batch: int,
    world_size: int,
) -> range:
    """The samples one rank takes in one micro-step.

    A step is always samples [step · per_step, (step + 1) · per_step), so the number of
    ranks and the size of a micro-batch change who computes a sample, never which is next.
    """
    start = step * samples_per_step + (micro_step * world_size + rank) * micro_batch
    return range(start, start + micro_batch)


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
