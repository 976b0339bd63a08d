"""Rolling hashes: finds windows of one array of integers in another.

    other array ─▶ all windows of a size ─▶ hashes ─▶ bit table
                                                          │
    array       ─▶ all windows ─▶ rolling hashes ─▶ marked there? ─▶ the same numbers?

The table rejects nearly all windows of an array that shares nothing, and the others are compared
number by number. The numbers may be hashes of words, or the ids of a tokenizer.
"""

from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS_PER_HASH = 64  # bits of the table per hash: at most 1 in 64 is marked
HASH_BASE = 0x9E3779B97F4A7C15  # an odd number of irregular bits
MIN_POWER_BITS = 16  # the smallest table holds 2^16 powers

HashArray = NDArray[np.uint64]
IndexArray = NDArray[np.int64]


class WindowIndex:
    """All windows of `size` nonzero numbers of an array; equal windows have the same id."""

    def __init__(self, tokens: HashArray, size: int) -> None:
        self.size, self._tokens = size, tokens
        zeros = np.concatenate([[0], np.cumsum(tokens == 0)])
        self.starts: IndexArray = np.flatnonzero(zeros[size:] == zeros[:-size])
        for self._base in count(HASH_BASE, 2):  # in practice the first base has no collision
            hashes = _rolling_hash(tokens, size, self._base)[self.starts]
            distinct, first, self.window_ids = np.unique(
                hashes, return_index=True, return_inverse=True
            )
            self.first_positions: IndexArray = self.starts[first]  # by id
            if self._is_equal(tokens, self.starts, self.window_ids).all():
                break
        self._hashes = HashSet(distinct)

    def __len__(self) -> int:
        """Return the number of distinct windows."""
        return len(self.first_positions)

    def find(self, tokens: HashArray) -> tuple[IndexArray, IndexArray]:
        """Return where such windows start in another array, and the id of each."""
        starts, ids = self._hashes.find(_rolling_hash(tokens, self.size, self._base))
        if len(starts):
            equal = self._is_equal(tokens, starts, ids)
            starts, ids = starts[equal], ids[equal]
        return starts, ids

    def _is_equal(
        self, tokens: HashArray, starts: IndexArray, ids: IndexArray
    ) -> NDArray[np.bool_]:
        """Return whether the windows at these starts have these ids, number by number."""
        positions = self.first_positions[ids]
        equal = np.ones(len(starts), bool)
        for i in range(self.size):
            equal &= tokens[starts + i] == self._tokens[positions + i]
        return equal


class SpanHasher:
    """Hashes of arbitrary spans of an array: Σ n_j · base^j.

    With the prefix sums computed once, the hash of a span is the difference of two of them, divided
    by the power of its start.
    """

    def __init__(self, tokens: NDArray[Any], base: int = HASH_BASE) -> None:
        power, self._inverse = _hash_powers(
            base, max((len(tokens) - 1).bit_length(), MIN_POWER_BITS)
        )
        self._sums = np.zeros(len(tokens) + 1, np.uint64)
        np.cumsum(tokens * power[: len(tokens)], out=self._sums[1:])

    def hash(self, starts: IndexArray, stops: IndexArray) -> HashArray:
        """Return the hashes of the spans [start, stop); none may be empty."""
        return (self._sums[stops] - self._sums[starts]) * self._inverse[starts]


class HashSet:
    """A sorted set of distinct hashes, searched for in much larger arrays."""

    def __init__(self, hashes: HashArray) -> None:
        self._hashes = hashes
        self._shift = np.uint64(64 - max((BITS_PER_HASH * len(hashes) - 1).bit_length(), 3))
        self._table = np.zeros(2 ** (61 - int(self._shift)), np.uint8)
        byte, bit = self._table_bits(hashes)
        np.bitwise_or.at(self._table, byte, np.left_shift(1, bit, dtype=np.uint8))

    def find(self, hashes: HashArray) -> tuple[IndexArray, IndexArray]:
        """Return which of the given hashes are in the set, and their indices in the set."""
        byte, bit = self._table_bits(hashes)
        marked = np.flatnonzero(self._table[byte] >> bit & 1)
        if not len(marked):
            return marked, marked
        index = np.searchsorted(self._hashes, hashes[marked]).clip(max=len(self._hashes) - 1)
        equal = self._hashes[index] == hashes[marked]
        return marked[equal], index[equal]

    def _table_bits(self, hashes: HashArray) -> tuple[HashArray, NDArray[np.uint8]]:
        """Return the byte of the table that marks each hash, and the bit in it."""
        position = hashes >> self._shift
        return position >> np.uint64(3), position.astype(np.uint8) & np.uint8(7)


@lru_cache(2)
def _hash_powers(base: int, bits: int) -> tuple[HashArray, HashArray]:
    """Return base^0, base^1, … modulo 2^64, and their inverses."""

    def powers(factor: int) -> HashArray:
        factors = np.full(2**bits, factor, np.uint64)
        factors[0] = 1
        return np.multiply.accumulate(factors)

    return powers(base), powers(pow(base, -1, 2**64))


def _rolling_hash(tokens: HashArray, size: int, base: int) -> HashArray:
    """Return, for each window of `size` numbers n, Σ n_i · base^(size - 1 - i) modulo 2^64."""
    if len(tokens) < size:
        return tokens[:0]
    if size == 1:
        return tokens
    half = size // 2
    half_hashes = _rolling_hash(tokens, half, base)
    hashes = half_hashes[:-half] * np.uint64(pow(base, half, 2**64))
    hashes += half_hashes[half:]
    if size % 2:
        hashes = hashes[:-1] * np.uint64(base % 2**64)
        hashes += tokens[size - 1 :]
    return hashes
