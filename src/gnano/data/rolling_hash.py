"""Finds stretches of one row of numbers in another, by rolling hashes.

    other row ─▶ all windows of so many numbers ─▶ hashes ─▶ bit table
                                                                │
    row       ─▶ all windows ───────▶ rolling hash ─▶ marked there? ─▶ the same numbers?

The table turns away nearly all windows of a row that shares nothing, and what it lets through is
compared number by number. Numbers may be hashes of words, or the ids of a tokenizer.
"""

from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS_PER_HASH = 64  # bits of the table for each hash looked for: at most 1 in 64 is marked
HASH_BASE = 0x9E3779B97F4A7C15  # of the hashes: odd, its bits in no order
MIN_POWER_BITS = 16  # a table of 2^16 powers is the smallest one made

HashArray = NDArray[np.uint64]
IndexArray = NDArray[np.int64]


class WindowIndex:
    """All windows of `size` numbers in a row, except those with a 0 in them.

    Windows of the same numbers are one `kind`; kinds are counted from 0.
    """

    def __init__(self, tokens: HashArray, size: int) -> None:
        self.size, self._tokens = size, tokens
        zeros = np.concatenate([[0], np.cumsum(tokens == 0)])
        self.starts: IndexArray = np.flatnonzero(zeros[size:] == zeros[:-size])
        for self._base in count(HASH_BASE, 2):  # in practice the first one tells all kinds apart
            hashes = _rolling_hash(tokens, size, self._base)[self.starts]
            different, first, self.window_ids = np.unique(
                hashes, return_index=True, return_inverse=True
            )
            self.first_positions: IndexArray = self.starts[first]  # where each kind is first
            if self._is_equal(tokens, self.starts, self.window_ids).all():
                break
        self._hashes = HashSet(different)

    def __len__(self) -> int:
        """How many kinds there are."""
        return len(self.first_positions)

    def find(self, tokens: HashArray) -> tuple[IndexArray, IndexArray]:
        """Where in another row such windows begin, and of which kind each of them is."""
        places, kinds = self._hashes.find(_rolling_hash(tokens, self.size, self._base))
        if len(places):
            same = self._is_equal(tokens, places, kinds)
            places, kinds = places[same], kinds[same]
        return places, kinds

    def _is_equal(self, row: HashArray, starts: IndexArray, kinds: IndexArray) -> NDArray[np.bool_]:
        """Whether the windows that start here in a row are of these kinds, number by number."""
        places = self.first_positions[kinds]
        same = np.ones(len(starts), bool)
        for i in range(self.size):
            same &= row[starts + i] == self._tokens[places + i]
        return same


class SpanHasher:
    """Hashes of stretches of a row, wherever they are and however long: Σ n_j · base^j.

    With the sums up to every place at hand, that of a stretch is the difference of two of them,
    divided by the power of its place.
    """

    def __init__(self, tokens: NDArray[Any], base: int = HASH_BASE) -> None:
        power, self._inverse = _hash_powers(
            base, max((len(tokens) - 1).bit_length(), MIN_POWER_BITS)
        )
        self._sums = np.zeros(len(tokens) + 1, np.uint64)
        np.cumsum(tokens * power[: len(tokens)], out=self._sums[1:])

    def hash(self, starts: IndexArray, stops: IndexArray) -> HashArray:
        """Of the stretches from these places up to those; none is empty."""
        return (self._sums[stops] - self._sums[starts]) * self._inverse[starts]


class HashSet:
    """Some hashes, each once and in order, to look for among very many."""

    def __init__(self, hashes: HashArray) -> None:
        self._hashes = hashes
        self._shift = np.uint64(64 - max((BITS_PER_HASH * len(hashes) - 1).bit_length(), 3))
        self._table = np.zeros(2 ** (61 - int(self._shift)), np.uint8)
        byte, bit = self._table_bits(hashes)
        np.bitwise_or.at(self._table, byte, np.left_shift(1, bit, dtype=np.uint8))

    def find(self, hashes: HashArray) -> tuple[IndexArray, IndexArray]:
        """Which of these are among the hashes, and which of the hashes they are."""
        byte, bit = self._table_bits(hashes)
        marked = np.flatnonzero(self._table[byte] >> bit & 1)
        if not len(marked):
            return marked, marked
        which = np.searchsorted(self._hashes, hashes[marked]).clip(max=len(self._hashes) - 1)
        same = self._hashes[which] == hashes[marked]
        return marked[same], which[same]

    def _table_bits(self, hashes: HashArray) -> tuple[HashArray, NDArray[np.uint8]]:
        """Where in the table a hash is marked: which byte, and which bit of it."""
        place = hashes >> self._shift
        return place >> np.uint64(3), place.astype(np.uint8) & np.uint8(7)


@lru_cache(2)
def _hash_powers(base: int, bits: int) -> tuple[HashArray, HashArray]:
    """base^0, base^1, … modulo 2^64, and what they are divided by with."""

    def powers(factor: int) -> HashArray:
        row = np.full(2**bits, factor, np.uint64)
        row[0] = 1
        return np.multiply.accumulate(row)

    return powers(base), powers(pow(base, -1, 2**64))


def _rolling_hash(row: HashArray, size: int, base: int) -> HashArray:
    """For each window of `size` numbers n, Σ n_i · base^(size - 1 - i) modulo 2^64."""
    if len(row) < size:
        return row[:0]
    if size == 1:
        return row
    half = size // 2
    part = _rolling_hash(row, half, base)
    whole = part[:-half] * np.uint64(pow(base, half, 2**64))
    whole += part[half:]
    if size % 2:
        whole = whole[:-1] * np.uint64(base % 2**64)
        whole += row[size - 1 :]
    return whole
