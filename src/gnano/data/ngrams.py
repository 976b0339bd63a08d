"""Finds the runs of 13 words that a text shares with a set of items.

A word is a run of letters, digits and _ in lower case, so that neither case nor punctuation nor
line breaks hide an item. No run goes on from one text into the next.

    texts     "In 1912 the old …"                 all at once, as one array of characters
                 │  where words begin and end
    numbers   5 81 3 7 …                          a word's number is a hash of its letters
                 │  windows of 13 numbers
    places    ─────▶ Windows ─▶ the same 13 numbers? ─▶ the same words?

At the end words are compared letter by letter, so the answer is exact, and the same on every
machine.
"""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.windows import BASE, Numbers, Places, Stretches, Windows

NGRAM = 13  # words
PART = 2**15  # characters made into words together: what is computed of them stays in the cache
WORD = re.compile(r"\w+")
NO_WORD = re.compile(r"\W")
BETWEEN = "\n\n\n"  # two texts: the middle one counts as a word, which no text can have


class Found(NamedTuple):
    """A run of 13 words that a text shares with an item."""

    kind: int  # number of the run: the same for the same 13 words
    text: int  # number of the text
    words: str


class NGrams:
    """All runs of 13 words of some items; an item of fewer words has none."""

    def __init__(self, items: Sequence[str]) -> None:
        for self._base in count(BASE, 2):  # in practice the first base tells all words apart
            self._words = words = _words(items, self._base)
            words.numbers[words.breaks] = 0
            different = len(np.unique(words.numbers[words.numbers > 0]))
            if different == len(set(WORD.findall(words.text))):
                break
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
    """Where the words of a text begin and end, and each one's number."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    inside = np.zeros(len(letters) + 2, bool)
    inside[1:-1] = _in_words()[letters]
    inside[middles + 1] = True
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[::2], edges[1::2]
    return starts, stops, Stretches(letters, base).hashes(starts, stops)


@cache
def _in_words() -> NDArray[np.bool_]:
    """For each character whether it belongs to a word."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in WORD.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table
