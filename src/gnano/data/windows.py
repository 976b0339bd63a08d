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

MARKS = 64  # bits of the table for each hash looked for: at most 1 in 64 is marked
BASE = 0x9E3779B97F4A7C15  # of the hashes: odd, its bits in no order
POWERS = 16  # a table of 2^16 powers is the smallest one made

Numbers = NDArray[np.uint64]
Places = NDArray[np.int64]


class Windows:
    """All windows of `size` numbers in a row, except those with a 0 in them.

    Windows of the same numbers are one `kind`; kinds are counted from 0.
    """

    def __init__(self, row: Numbers, size: int) -> None:
        self.size, self._row = size, row
        zeros = np.concatenate([[0], np.cumsum(row == 0)])
        self.starts: Places = np.flatnonzero(zeros[size:] == zeros[:-size])
        for self._base in count(BASE, 2):  # in practice the first one tells all kinds apart
            hashes = _rolling_hash(row, size, self._base)[self.starts]
            different, first, self.kinds = np.unique(hashes, return_index=True, return_inverse=True)
            self.places: Places = self.starts[first]  # where each kind is first
            if self._same(row, self.starts, self.kinds).all():
                break
        self._hashes = Hashes(different)

    def __len__(self) -> int:
        """How many kinds there are."""
        return len(self.places)

    def find(self, row: Numbers) -> tuple[Places, Places]:
        """Where in another row such windows begin, and of which kind each of them is."""
        places, kinds = self._hashes.find(_rolling_hash(row, self.size, self._base))
        if len(places):
            same = self._same(row, places, kinds)
            places, kinds = places[same], kinds[same]
        return places, kinds

    def _same(self, row: Numbers, starts: Places, kinds: Places) -> NDArray[np.bool_]:
        """Whether the windows that start here in a row are of these kinds, number by number."""
        places = self.places[kinds]
        same = np.ones(len(starts), bool)
        for i in range(self.size):
            same &= row[starts + i] == self._row[places + i]
        return same


class Stretches:
    """Hashes of stretches of a row, wherever they are and however long: Σ n_j · base^j.

    With the sums up to every place at hand, that of a stretch is the difference of two of them,
    divided by the power of its place.
    """

    def __init__(self, row: NDArray[Any], base: int = BASE) -> None:
        power, self._inverse = _powers(base, max((len(row) - 1).bit_length(), POWERS))
        self._sums = np.zeros(len(row) + 1, np.uint64)
        np.cumsum(row * power[: len(row)], out=self._sums[1:])

    def hashes(self, starts: Places, stops: Places) -> Numbers:
        """Of the stretches from these places up to those; none is empty."""
        return (self._sums[stops] - self._sums[starts]) * self._inverse[starts]


class Hashes:
    """Some hashes, each once and in order, to look for among very many."""

    def __init__(self, hashes: Numbers) -> None:
        self._hashes = hashes
        self._shift = np.uint64(64 - max((MARKS * len(hashes) - 1).bit_length(), 3))
        self._table = np.zeros(2 ** (61 - int(self._shift)), np.uint8)
        byte, bit = self._mark(hashes)
        np.bitwise_or.at(self._table, byte, np.left_shift(1, bit, dtype=np.uint8))

    def find(self, hashes: Numbers) -> tuple[Places, Places]:
        """Which of these are among the hashes, and which of the hashes they are."""
        byte, bit = self._mark(hashes)
        marked = np.flatnonzero(self._table[byte] >> bit & 1)
        if not len(marked):
            return marked, marked
        which = np.searchsorted(self._hashes, hashes[marked]).clip(max=len(self._hashes) - 1)
        same = self._hashes[which] == hashes[marked]
        return marked[same], which[same]

    def _mark(self, hashes: Numbers) -> tuple[Numbers, NDArray[np.uint8]]:
        """Where in the table a hash is marked: which byte, and which bit of it."""
        place = hashes >> self._shift
        return place >> np.uint64(3), place.astype(np.uint8) & np.uint8(7)


@lru_cache(2)
def _powers(base: int, bits: int) -> tuple[Numbers, Numbers]:
    """base^0, base^1, … modulo 2^64, and what they are divided by with."""

    def powers(factor: int) -> Numbers:
        row = np.full(2**bits, factor, np.uint64)
        row[0] = 1
        return np.multiply.accumulate(row)

    return powers(base), powers(pow(base, -1, 2**64))


def _rolling_hash(row: Numbers, size: int, base: int) -> Numbers:
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
