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

Drops documents that share a run of 13 words with an evaluation item.

Any shared run drops the document (after Brown et al. 2020, arXiv:2005.14165, appendix C);
`ngrams.py` says what a word is and how runs are found. Every string in an evaluation file is
an item of its own; one of fewer than 13 words has no such run and is not looked for.
"""

import re
import sys
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.readers import detect_form, read_records_of_form
from gnano.data.record_errors import RecordError
from gnano.data.rolling_hash import HASH_BASE, HashArray, IndexArray, SpanHasher, WindowIndex
from gnano.data.text_files import read_lines

NGRAM_WORDS = 13  # words
CHUNK_CHARS = (
    2**15
)  # characters made into words together: what is computed of them stays in the cache
WORD_PATTERN = re.compile(r"\w+")
NON_WORD_PATTERN = re.compile(r"\W")
TEXT_SEPARATOR = "\n\n\n"  # two texts: the middle one counts as a word, which no text can have


class NGramMatch(NamedTuple):
    """A run of 13 words that a text shares with an item."""

    ngram_id: int  # number of the run: the same for the same 13 words
    text_index: int  # number of the text
    words: str


class NGramIndex:
    """All runs of 13 words of some items; an item of fewer words has none."""

    def __init__(self, items: Sequence[str]) -> None:
        for self._hash_base in count(
            HASH_BASE, 2
        ):  # in practice the first base tells all words apart
            self._item_words = words = _tokenize_words(items, self._hash_base)
            words.hashes[words.text_breaks] = 0
            different = len(np.unique(words.hashes[words.hashes > 0]))
            if different == len(set(WORD_PATTERN.findall(words.text))):
                break
        self._window_index = WindowIndex(words.hashes, NGRAM_WORDS)
        self._items = words.text_index(self._window_index.starts)

    def __len__(self) -> int:
        """How many different runs of 13 words there are."""
        return len(self._window_index)

    @property
    def items_with_ngrams(self) -> set[int]:
        """Numbers of the items that have a run of 13 words."""
        return set(self._items.tolist())

    def items_by_ngram(self, ngram_ids: Collection[int]) -> dict[int, set[int]]:
        """For each of these runs the numbers of the items that have it."""
        asked = np.zeros(len(self), bool)
        asked[list(ngram_ids)] = True
        having = np.flatnonzero(asked[self._window_index.window_ids])
        items: dict[int, set[int]] = {kind: set() for kind in ngram_ids}
        for kind, item in zip(
            self._window_index.window_ids[having].tolist(),
            self._items[having].tolist(),
            strict=True,
        ):
            items[kind].add(item)
        return items

    def find(self, texts: Sequence[str]) -> Iterator[NGramMatch]:
        """The runs that these texts share with the items, each where it is first."""
        words = _tokenize_words(texts, self._hash_base)
        places, kinds = self._window_index.find(words.hashes)
        found = set()
        for place, kind in zip(places.tolist(), kinds.tolist(), strict=True):
            if kind not in found:
                run = words.words_at(place)
                if run == self._item_words.words_at(int(self._window_index.first_positions[kind])):
                    found.add(kind)
                    yield NGramMatch(kind, int(words.text_index(place)), " ".join(run))


class _TokenizedTexts(NamedTuple):
    """Some texts, joined, and their words: where each begins and ends, and its number."""

    text: str
    starts: IndexArray
    stops: IndexArray
    hashes: HashArray
    text_breaks: IndexArray  # which of the words stand between two texts

    def text_index(self, word: Any) -> Any:
        """Which text a word stands in."""
        return np.searchsorted(self.text_breaks, word)

    def words_at(self, word: int) -> list[str]:
        """The 13 words from this one on; fewer if there is a break among them."""
        return WORD_PATTERN.findall(
            self.text[self.starts[word] : self.stops[word + NGRAM_WORDS - 1]]
        )


def _tokenize_words(texts: Sequence[str], base: int) -> _TokenizedTexts:
    lower = [text.lower() for text in texts]
    whole = TEXT_SEPARATOR.join(lower)
    lengths = np.fromiter(map(len, lower), np.int64, len(lower))
    middles = (np.cumsum(lengths + len(TEXT_SEPARATOR)) - len(TEXT_SEPARATOR) + 1)[:-1]
    parts: list[tuple[int, IndexArray, IndexArray, HashArray]] = []
    start = 0
    while start < len(whole) or not parts:
        gap = NON_WORD_PATTERN.search(whole, start + CHUNK_CHARS)  # a word is never cut
        stop = gap.start() if gap else len(whole)
        first, last = middles.searchsorted([start, stop])
        here = middles[first:last] - start
        parts.append((start, *_tokenize_chunk(whole[start:stop], here, base)))
        start = stop
    if len(parts) == 1 and not len(middles):  # one short text need not take long
        return _TokenizedTexts(whole, *parts[0][1:], middles)
    starts = np.concatenate([first + at for first, at, _, _ in parts])
    stops = np.concatenate([first + at for first, _, at, _ in parts])
    numbers = np.concatenate([part[3] for part in parts])
    return _TokenizedTexts(whole, starts, stops, numbers, np.searchsorted(starts, middles))


def _tokenize_chunk(
    text: str, breaks: IndexArray, base: int
) -> tuple[IndexArray, IndexArray, HashArray]:
    """Where the words of a text begin and end, and each one's number."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    inside = np.zeros(len(letters) + 2, bool)
    inside[1:-1] = _word_character_table()[letters]
    inside[breaks + 1] = True
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[::2], edges[1::2]
    return starts, stops, SpanHasher(letters, base).hash(starts, stops)


@cache
def _word_character_table() -> NDArray[np.bool_]:
    """For each character whether it belongs to a word."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in WORD_PATTERN.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table


class DecontaminationFilter:
    """The 13-grams of evaluation files: JSON, JSON lines, CSV, Parquet or text; also packed.

    Raises FileNotFoundError or ValueError, naming the file, where one is missing, cannot be
    read or holds no item of 13 words.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        items: list[str] = []
        ends = []  # of each file's items
        for path in files:
            items.extend(_iter_strings(_read_items(path)))
            ends.append(len(items))
        self._index = NGramIndex(items)
        looked_for = sorted(self._index.items_with_ngrams)
        for path, end, before in zip(files, ends, [0, *ends], strict=False):
            if bisect_left(looked_for, before) == bisect_left(looked_for, end):
                raise ValueError(
                    f"{path} holds no text of {NGRAM_WORDS} words or more, so nothing of it can be "
                    f"looked for: take it out of data.decontaminate."
                )

    @property
    def ngram_count(self) -> int:
        """How many different 13-grams are looked for."""
        return len(self._index)

    def is_contaminated(self, text: str) -> bool:
        """Whether the text shares a run of 13 words with an item."""
        return any(self._index.find([text]))


def _read_items(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no evaluation file {path} (data.decontaminate).")
    form = detect_form(path)
    if form == "text":
        yield "".join(line for _, line in read_lines(path))
        return
    for record in read_records_of_form(path, form):
        if isinstance(record, RecordError):  # an item that is missed would be trained on
            raise record
        yield record.value


def _iter_strings(values: Iterator[Any]) -> Iterator[str]:
    """Every string in lists and dictionaries of any depth; not their keys."""
    for value in values:
        waiting = [value]
        while waiting:
            match waiting.pop():
                case str(text):
                    yield text
                case list(inner):
                    waiting.extend(inner)
                case dict(inner):
                    waiting.extend(inner.values())
