"""Shared n-grams: finds the runs of 13 words that a text shares with evaluation items.

A word is a run of letters, digits and _ in lower case, so that neither case nor punctuation nor
line breaks hide an item. A run never continues from one text into the next.

    texts     "In 1912 the old …"                 all together, as one array of characters
                 │  where words start and end
    hashes    5 81 3 7 …                          one hash of the letters of each word
                 │  windows of 13 hashes
    places    ─────▶ WindowIndex ─▶ the same 13 hashes? ─▶ the same words?

Finally words are compared letter by letter, so the answer is exact, and the same on every machine.

Decontamination drops a document that shares any run with an evaluation item (after Brown et al.
2020, arXiv:2005.14165, appendix C). Every string in an evaluation file is one item; an item of
fewer than 13 words has no run and is not searched for.
"""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.readers import detect_form, read_records_of_form
from gnano.data.rolling_hash import HASH_BASE, HashArray, IndexArray, SpanHasher, WindowIndex
from gnano.data.text_files import RecordError, read_lines

NGRAM_WORDS = 13
CHUNK_CHARS = 2**15  # characters that are split into words together, so that they fit the cache
WORD_PATTERN = re.compile(r"\w+")
NON_WORD_PATTERN = re.compile(r"\W")
TEXT_SEPARATOR = "\n\n\n"  # the middle line feed counts as a word that no text can have


class NGramMatch(NamedTuple):
    """A run of 13 words that a text shares with an item."""

    ngram_id: int  # equal for equal runs
    text_index: int
    words: str


class NGramIndex:
    """All runs of 13 words in some items."""

    def __init__(self, items: Sequence[str]) -> None:
        for self._hash_base in count(HASH_BASE, 2):  # in practice the first base has no collision
            self._item_words = words = _tokenize_words(items, self._hash_base)
            words.hashes[words.text_breaks] = 0
            distinct = len(np.unique(words.hashes[words.hashes > 0]))
            if distinct == len(set(WORD_PATTERN.findall(words.text))):
                break
        self._window_index = WindowIndex(words.hashes, NGRAM_WORDS)
        self._items = words.text_index(self._window_index.starts)

    def __len__(self) -> int:
        """Return the number of distinct runs."""
        return len(self._window_index)

    @property
    def items_with_ngrams(self) -> set[int]:
        """The indices of the items of at least 13 words."""
        return set(self._items.tolist())

    def items_by_ngram(self, ngram_ids: Collection[int]) -> dict[int, set[int]]:
        """Return, for each of these runs, the indices of the items that contain it."""
        window_ids = self._window_index.window_ids
        is_requested = np.zeros(len(self), bool)
        is_requested[list(ngram_ids)] = True
        windows = np.flatnonzero(is_requested[window_ids])
        items: dict[int, set[int]] = {ngram_id: set() for ngram_id in ngram_ids}
        pairs = zip(window_ids[windows].tolist(), self._items[windows].tolist(), strict=True)
        for ngram_id, item in pairs:
            items[ngram_id].add(item)
        return items

    def find(self, texts: Sequence[str]) -> Iterator[NGramMatch]:
        """Yield the runs that these texts share with the items, each at its first occurrence."""
        words = _tokenize_words(texts, self._hash_base)
        positions, ngram_ids = self._window_index.find(words.hashes)
        found = set()
        for position, ngram_id in zip(positions.tolist(), ngram_ids.tolist(), strict=True):
            if ngram_id not in found:
                run = words.words_at(position)
                first = int(self._window_index.first_positions[ngram_id])
                if run == self._item_words.words_at(first):
                    found.add(ngram_id)
                    yield NGramMatch(ngram_id, int(words.text_index(position)), " ".join(run))


class _TokenizedTexts(NamedTuple):
    """Joined texts and their words: where each word starts and stops, and its hash."""

    text: str
    starts: IndexArray
    stops: IndexArray
    hashes: HashArray
    text_breaks: IndexArray  # indices of the words between two texts

    def text_index(self, word: Any) -> Any:
        """Return the index of the text that contains a word."""
        return np.searchsorted(self.text_breaks, word)

    def words_at(self, word: int) -> list[str]:
        """Return the 13 words from this one; fewer if a text ends among them."""
        return WORD_PATTERN.findall(
            self.text[self.starts[word] : self.stops[word + NGRAM_WORDS - 1]]
        )


def _tokenize_words(texts: Sequence[str], base: int) -> _TokenizedTexts:
    lower = [text.lower() for text in texts]
    joined = TEXT_SEPARATOR.join(lower)
    lengths = np.fromiter(map(len, lower), np.int64, len(lower))
    middles = (np.cumsum(lengths + len(TEXT_SEPARATOR)) - len(TEXT_SEPARATOR) + 1)[:-1]
    parts: list[tuple[int, IndexArray, IndexArray, HashArray]] = []
    start = 0
    while start < len(joined) or not parts:
        gap = NON_WORD_PATTERN.search(joined, start + CHUNK_CHARS)  # a word is never cut
        stop = gap.start() if gap else len(joined)
        first, last = middles.searchsorted([start, stop])
        here = middles[first:last] - start
        parts.append((start, *_tokenize_chunk(joined[start:stop], here, base)))
        start = stop
    if len(parts) == 1 and not len(middles):  # the fast path for one short text
        return _TokenizedTexts(joined, *parts[0][1:], middles)
    starts = np.concatenate([first + at for first, at, _, _ in parts])
    stops = np.concatenate([first + at for first, _, at, _ in parts])
    hashes = np.concatenate([part[3] for part in parts])
    return _TokenizedTexts(joined, starts, stops, hashes, np.searchsorted(starts, middles))


def _tokenize_chunk(
    text: str, breaks: IndexArray, base: int
) -> tuple[IndexArray, IndexArray, HashArray]:
    """Return where the words of a text start and stop, and their hashes."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    inside = np.zeros(len(letters) + 2, bool)
    inside[1:-1] = _word_character_table()[letters]
    inside[breaks + 1] = True
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[::2], edges[1::2]
    return starts, stops, SpanHasher(letters, base).hash(starts, stops)


@cache
def _word_character_table() -> NDArray[np.bool_]:
    """Return, for each code point, whether it belongs to a word."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in WORD_PATTERN.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table


class DecontaminationFilter:
    """The 13-grams of evaluation files: JSON, JSON lines, CSV, Parquet or text; also compressed.

    Raises FileNotFoundError or ValueError, naming the file, if one is missing, cannot be read or
    holds no item of 13 words.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        items_by_file = [list(_iter_strings(_read_items(path))) for path in files]
        self._index = NGramIndex(list(chain.from_iterable(items_by_file)))
        searchable, end = self._index.items_with_ngrams, 0
        for path, items in zip(files, items_by_file, strict=True):
            start, end = end, end + len(items)
            if searchable.isdisjoint(range(start, end)):
                raise ValueError(
                    f"{path} holds no text of {NGRAM_WORDS} words or more, so nothing of it can be "
                    f"searched for: remove it from data.decontaminate."
                )

    @property
    def ngram_count(self) -> int:
        """The number of distinct 13-grams."""
        return len(self._index)

    def is_contaminated(self, text: str) -> bool:
        """Return whether a text shares a run of 13 words with an item."""
        return any(self._index.find([text]))


def _read_items(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no evaluation file {path} (data.decontaminate).")
    form = detect_form(path)
    if form == "text":
        yield "".join(line for _, line in read_lines(path))
        return
    for record in read_records_of_form(path, form):
        if isinstance(record, RecordError):  # a missed item would be trained on
            raise record
        yield record.value


def _iter_strings(values: Iterator[Any]) -> Iterator[str]:
    """Yield every string in nested lists and dictionary values."""
    for value in values:
        pending = [value]
        while pending:
            match pending.pop():
                case str(text):
                    yield text
                case list(inner):
                    pending.extend(inner)
                case dict(inner):
                    pending.extend(inner.values())
