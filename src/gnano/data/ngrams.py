"""Which runs of 13 words does a text share with a set of items?

A word is a run of letters, digits and _ in lower case, so that neither case nor punctuation nor
line breaks hide an item. No run goes on from one text into the next.

    texts     "In 1912 the old …"                 all at once, as one array of characters
                 │  where words begin and end
    numbers   5 81 3 7 …                          a word's number is a hash of its letters
                 │  windows of 13 numbers
    hashes    ────────▶ bit table ─▶ marked there? ─▶ the same 13 numbers? ─▶ the same words?

The table turns away nearly all runs of a text that shares nothing. What it lets through is
compared, at the end letter by letter, so the answer is exact, and the same on every machine.
Windows are of numbers of any kind: the ids of a tokenizer are looked for in the same way.
"""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NGRAM = 13  # words
MARKS = 64  # bits of the table for each window looked for: at most 1 in 64 is marked
BASE = 0x9E3779B97F4A7C15  # of the hashes: odd, its bits in no order
PART = 2**15  # characters made into words together: what is computed of them stays in the cache
WORD = re.compile(r"\w+")
NO_WORD = re.compile(r"\W")
BETWEEN = "\n\n\n"  # two texts: the middle one counts as a word, which no text can have

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
            self._hashes, first, self.kinds = np.unique(
                hashes, return_index=True, return_inverse=True
            )
            self.places: Places = self.starts[first]  # where each kind is first
            if self._same(row, self.starts, self.kinds).all():
                break
        self._shift = np.uint64(64 - max((MARKS * len(self) - 1).bit_length(), 3))
        self._table = np.zeros(2 ** (61 - int(self._shift)), np.uint8)
        byte, bit = self._mark(self._hashes)
        np.bitwise_or.at(self._table, byte, np.left_shift(1, bit, dtype=np.uint8))

    def __len__(self) -> int:
        """How many kinds there are."""
        return len(self.places)

    def find(self, row: Numbers) -> tuple[Places, Places]:
        """Where in another row such windows begin, and of which kind each of them is."""
        hashes = _rolling_hash(row, self.size, self._base)
        byte, bit = self._mark(hashes)
        marked = np.flatnonzero(self._table[byte] >> bit & 1)
        if not len(marked):
            return marked, marked
        kinds = np.searchsorted(self._hashes, hashes[marked]).clip(max=len(self) - 1)
        same = self._hashes[kinds] == hashes[marked]
        marked, kinds = marked[same], kinds[same]
        if not len(marked):
            return marked, kinds
        same = self._same(row, marked, kinds)
        return marked[same], kinds[same]

    def _same(self, row: Numbers, starts: Places, kinds: Places) -> NDArray[np.bool_]:
        """Whether the windows that start here in a row are of these kinds, number by number."""
        places = self.places[kinds]
        same = np.ones(len(starts), bool)
        for i in range(self.size):
            same &= row[starts + i] == self._row[places + i]
        return same

    def _mark(self, hashes: Numbers) -> tuple[Numbers, NDArray[np.uint8]]:
        """Where in the table a hash is marked: which byte, and which bit of it."""
        place = hashes >> self._shift
        return place >> np.uint64(3), place.astype(np.uint8) & np.uint8(7)


class Found(NamedTuple):
    """A run of 13 words that a text shares with an item."""

    kind: int  # number of the run: the same for the same 13 words
    text: int  # number of the text
    words: str


class NGrams:
    """All runs of 13 words of some items; an item of fewer words has none."""

    def __init__(self, items: Sequence[str]) -> None:
        for self._base in range(BASE, BASE + 16, 2):
            self._words = words = _words(items, self._base)
            words.numbers[words.breaks] = 0
            different = len(np.unique(words.numbers[words.numbers > 0]))
            if different == len(set(WORD.findall(words.text))):
                break
        else:  # in practice the first base tells all words apart
            raise AssertionError("two words whose hashes are the same in every base")
        self._windows = Windows(words.numbers, NGRAM)
        self._items = words.text_of(self._windows.starts)

    def __len__(self) -> int:
        """How many different runs of 13 words there are."""
        return len(self._windows)

    @property
    def items(self) -> set[int]:
        """Numbers of the items that have a run of 13 words."""
        return set(self._items.tolist())

    def items_with(self, kinds: Collection[int]) -> dict[int, set[int]]:
        """For each of these runs the numbers of the items that have it."""
        asked = np.zeros(len(self), bool)
        asked[list(kinds)] = True
        having = np.flatnonzero(asked[self._windows.kinds])
        items: dict[int, set[int]] = {kind: set() for kind in kinds}
        for kind, item in zip(
            self._windows.kinds[having].tolist(), self._items[having].tolist(), strict=True
        ):
            items[kind].add(item)
        return items

    def find(self, texts: Sequence[str]) -> Iterator[Found]:
        """The runs that these texts share with the items, each where it is first."""
        words = _words(texts, self._base)
        places, kinds = self._windows.find(words.numbers)
        found = set()
        for place, kind in zip(places.tolist(), kinds.tolist(), strict=True):
            if kind not in found:
                run = words.run(place)
                if run == self._words.run(int(self._windows.places[kind])):
                    found.add(kind)
                    yield Found(kind, int(words.text_of(place)), " ".join(run))


class _Words(NamedTuple):
    """Some texts, joined, and their words: where each begins and ends, and its number."""

    text: str
    starts: Places
    stops: Places
    numbers: Numbers
    breaks: Places  # which of the words stand between two texts

    def text_of(self, word: Any) -> Any:
        """Which text a word stands in."""
        return np.searchsorted(self.breaks, word)

    def run(self, word: int) -> list[str]:
        """The 13 words from this one on; fewer if there is a break among them."""
        return WORD.findall(self.text[self.starts[word] : self.stops[word + NGRAM - 1]])


def _words(texts: Sequence[str], base: int) -> _Words:
    lower = [text.lower() for text in texts]
    whole = BETWEEN.join(lower)
    lengths = np.fromiter(map(len, lower), np.int64, len(lower))
    middles = (np.cumsum(lengths + len(BETWEEN)) - len(BETWEEN) + 1)[:-1]
    parts: list[tuple[int, Places, Places, Numbers]] = []
    start = 0
    while start < len(whole) or not parts:
        gap = NO_WORD.search(whole, start + PART)  # a word is never cut
        stop = gap.start() if gap else len(whole)
        first, last = middles.searchsorted([start, stop])
        here = middles[first:last] - start
        parts.append((start, *_part(whole[start:stop], here, base)))
        start = stop
    if len(parts) == 1 and not len(middles):  # one short text need not take long
        return _Words(whole, *parts[0][1:], middles)
    starts = np.concatenate([first + at for first, at, _, _ in parts])
    stops = np.concatenate([first + at for first, _, at, _ in parts])
    numbers = np.concatenate([part[3] for part in parts])
    return _Words(whole, starts, stops, numbers, np.searchsorted(starts, middles))


def _part(text: str, middles: Places, base: int) -> tuple[Places, Places, Numbers]:
    """Where the words of a text begin and end, and each one's number, Σ letter_j · base^j.

    With the sums over the whole text at hand, a word's sum is the difference of two of them,
    divided by the power of its place.
    """
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    inside = np.zeros(len(letters) + 2, bool)
    inside[1:-1] = _in_words()[letters]
    inside[middles + 1] = True
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[::2], edges[1::2]
    power, inverse = _powers(base, (max(len(letters), 2 * PART) - 1).bit_length())
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * power[: len(letters)], out=sums[1:])
    return starts, stops, (sums[stops] - sums[starts]) * inverse[starts]


@cache
def _in_words() -> NDArray[np.bool_]:
    """For each character whether it belongs to a word."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in WORD.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table


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
