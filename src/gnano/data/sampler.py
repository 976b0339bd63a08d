"""Sample orders: pure functions from a sample's number to where it is stored.

`MixtureSampler` maps it to (source, epoch, shard, row). Weighted sources are interleaved in blocks
of `BLOCK_SIZE` samples. Every block contains each source in its exact share (largest remainders
decide the fractions), shuffled by (seed, block). Within a source, the sequences of one shard follow
one another, shuffled by (seed, source, epoch, shard): reads stay local, and a shard that does not
exist yet cannot change what came before it.

    sample(i) ──block──▶ source s, its k-th sequence ──shard──▶ (epoch, shard, row)

A step takes the next samples, whichever rank computes them: see `rank_sample_range`.

`EpochSampler` maps a sample's number to (epoch, source, row). A source's weight is how many times
its rows occur in an epoch, and every epoch is reshuffled:

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
# the first number of a random key: independent streams for every seed
BLOCK_STREAM, ROW_STREAM, EXAMPLE_STREAM, EPOCH_STREAM = 1, 2, 3, 4
FEISTEL_ROUNDS = 4  # each round updates both halves
MASK_64_BITS = 2**64 - 1


class SampleIndex(NamedTuple):
    """Where a sample is stored."""

    source: int
    epoch: int  # completed passes over the source
    shard: int
    row: int  # sequence of the shard


class ShardNotReady(Exception):  # noqa: N818 - a state, not an error
    """The sample is in a shard that is still being prepared."""

    def __init__(self, source: int, shard: int) -> None:
        super().__init__(source, shard)
        self.source, self.shard = source, shard


class MixtureSampler:
    """The sample order of a corpus with `rows_per_shard[s][h]` sequences in shard h of source s.

    A source that is not complete may get more shards after those it has.
    """

    def __init__(
        self,
        rows_per_shard: list[list[int]],
        weights: Sequence[float],
        seed: int,
        is_complete: Sequence[bool] | None = None,
    ) -> None:
        self.seed = seed
        # how many samples of a block each source gets: the largest remainders are rounded up
        exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * BLOCK_SIZE
        counts = np.floor(exact).astype(int)
        for source in np.argsort(counts - exact, kind="stable")[: BLOCK_SIZE - counts.sum()]:
            counts[source] += 1
        self.block_counts: tuple[int, ...] = tuple(counts.tolist())
        self.shard_ends = [list(accumulate(shards)) for shards in rows_per_shard]
        self.is_complete = is_complete or [True] * len(rows_per_shard)

    def locate(self, sample: int) -> SampleIndex:
        """Return where a sample is stored; raise ShardNotReady if its shard is not prepared yet."""
        block, position = divmod(sample, BLOCK_SIZE)
        sources, occurrences = _shuffled_block(self.seed, block, self.block_counts)
        source = sources[position]
        k = block * self.block_counts[source] + occurrences[position]
        ends = self.shard_ends[source]
        if not self.is_complete[source] and (not ends or k >= ends[-1]):
            raise ShardNotReady(source, len(ends))
        epoch, rest = divmod(k, ends[-1])
        shard = bisect_right(ends, rest)
        start = ends[shard - 1] if shard else 0
        key = (ROW_STREAM, self.seed, source, epoch, shard)
        row = feistel_permute(key, ends[shard] - start, rest - start)
        return SampleIndex(source, epoch, shard, row)


@lru_cache(maxsize=16)
def _shuffled_block(seed: int, block: int, counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return the source of each position of a block, and its occurrence.

    The occurrence is how many earlier positions of the block have that source.
    """
    sources = np.repeat(np.arange(len(counts)), counts)
    sources = sources[shuffled_indices((BLOCK_STREAM, seed, block), len(sources))]
    occurrences = np.empty_like(sources)
    for source, count in enumerate(counts):
        occurrences[sources == source] = np.arange(count)
    # lists: arrays are slow to read one entry at a time
    return sources.tolist(), occurrences.tolist()


def shuffled_indices(key: tuple[int, ...], n: int) -> NDArray[np.int64]:
    """Return 0 … n-1 shuffled by the key, the same with every version of NumPy."""
    # NumPy guarantees the raw stream of a bit generator, but not `shuffle`'s use of it
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)
    return np.argsort(raw, kind="stable")


def feistel_permute(key: tuple[int, ...], n: int, index: int) -> int:
    """Return the image of `index` under a permutation of 0 … n-1 that the key determines.

    A Feistel network over a grid of about √n × √n cells: in each step one coordinate is shifted by
    a hash of the other, which is invertible, so no two indices collide. The few cells outside are
    permuted again until they are inside (cycle walking; Black & Rogaway 2002, "Ciphers with
    Arbitrary Finite Domains"). The hash is the finalizer of SplitMix64 (Steele et al. 2014).
    """
    width = isqrt(n - 1) + 1 if n > 1 else 1
    height = -(-n // width)
    keys = _round_keys(key)
    while True:
        x, y = index % width, index // width
        for step, round_key in enumerate(keys):
            z = (y * 0x9E3779B97F4A7C15 + round_key) & MASK_64_BITS
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64_BITS
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64_BITS
            shifted = x + (z ^ (z >> 31))
            # they change places, so the next step shifts the other
            x, y = y, shifted % (height if step % 2 else width)
        index = y * width + x
        if index < n:
            return index


@lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> list[int]:
    """Return a number for each step of the network, two for each round."""
    digest = blake2b(repr(key).encode(), digest_size=16 * FEISTEL_ROUNDS).digest()
    return [int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8)]


def rank_sample_range(
    step: int,
    micro_step: int,
    rank: int,
    *,
    samples_per_step: int,
    micro_batch: int,
    world_size: int,
) -> range:
    """Return the samples of one rank in one micro-step.

    A step is always samples [step · samples_per_step, (step + 1) · samples_per_step), so the world
    size and the micro-batch change which rank computes a sample, never which sample is next.
    """
    start = step * samples_per_step + (micro_step * world_size + rank) * micro_batch
    return range(start, start + micro_batch)


class EpochSampler:
    """The order of samples by epochs, of sources with `row_counts` rows each."""

    def __init__(self, row_counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.row_counts, self.seed = list(row_counts), seed
        # of each source; a source with a weight has at least one
        self.rows_per_epoch = [
            max(round(count * weight), 1) if count and weight else 0
            for count, weight in zip(row_counts, weights, strict=True)
        ]
        self.epoch_size = sum(self.rows_per_epoch)  # rows per epoch
        if not self.epoch_size:
            raise ValueError(
                "There is no row to train on: give a source with records a weight above 0."
            )
        self._cached_epoch = lru_cache(maxsize=2)(self._shuffle_epoch)

    def locate(self, sample: int) -> tuple[int, int, int]:
        """Return the epoch, source and row of a sample."""
        epoch, position = divmod(sample, self.epoch_size)
        source, row = self._cached_epoch(epoch)[position]
        return epoch, int(source), int(row)

    def _shuffle_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return all (source, row) of an epoch, in order."""
        parts = []
        for source, (rows, share) in enumerate(
            zip(self.row_counts, self.rows_per_epoch, strict=True)
        ):
            if share:
                # passes over the source's rows follow one another, each in another order
                first_pass, offset = divmod(epoch * share, rows)
                passes = range(first_pass, -(-(epoch + 1) * share // rows))
                orders = [
                    shuffled_indices((EPOCH_STREAM, self.seed, source, number), rows)
                    for number in passes
                ]
                selected = np.concatenate(orders)[offset:][:share]
                parts.append(np.stack([np.full(share, source), selected], 1))
        pairs = np.concatenate(parts)
        return pairs[shuffled_indices((EXAMPLE_STREAM, self.seed, epoch), len(pairs))]
