"""Decontamination: finds runs of 13 words that a text shares with evaluation items.

A word is a run of letters, digits and _ in lower case, so that neither case nor punctuation nor
line breaks hide an item. A run never continues from one text into the next.

    texts     "In 1912 the old …"                 all together, as one array of characters
                 │  where words start and end
    hashes    5 81 3 7 …                          one hash of the letters of each word
                 │  windows of 13 hashes
    places    ─────▶ WindowIndex ─▶ marked in a bit table? ─▶ the same 13 hashes? ─▶ the same words?

The table rejects nearly all windows of a text that shares nothing. Finally words are compared
letter by letter, so the answer is exact, and the same on every machine. `WindowIndex` and the
classes below it also serve arrays of token ids.

Decontamination drops a document that shares any run with an evaluation item (after Brown et al.
2020, arXiv:2005.14165, appendix C). Every string in an evaluation file is one item; an item of
fewer than 13 words has no run and is not searched for.
"""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.readers import detect_form, read_records_of_form
from gnano.data.text_files import RecordError, read_lines

NGRAM_WORDS = 13
CHUNK_CHARS = 2**15  # characters that are split into words together, so that they fit the cache
WORD_PATTERN = re.compile(r"\w+")
NON_WORD_PATTERN = re.compile(r"\W")
TEXT_SEPARATOR = "\n\n\n"  # the middle line feed counts as a word that no text can have
BITS_PER_HASH = 64  # bits of the table per hash: at most 1 in 64 is marked
HASH_BASE = 0x9E3779B97F4A7C15  # an odd number of irregular bits
MIN_POWER_BITS = 16  # the smallest table holds 2^16 powers

HashArray = NDArray[np.uint64]
IndexArray = NDArray[np.int64]


class DecontaminationFilter:
    """The 13-grams of evaluation files: JSON, JSON lines, CSV, Parquet or text; also compressed.

    Raises FileNotFoundError or ValueError, naming the file, if one is missing, cannot be read or
    holds no item of 13 words.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        items_by_file = [list(_read_strings(path)) for path in files]
        self._index = NGramIndex(list(chain.from_iterable(items_by_file)))
        end = 0
        for path, items in zip(files, items_by_file, strict=True):
            start, end = end, end + len(items)
            if self._index.items_with_ngrams.isdisjoint(range(start, end)):
                raise ValueError(
                    f"{path} holds no text of {NGRAM_WORDS} words or more, so nothing of it can be "
                    f"searched for: remove it from data.decontaminate."
                )

    def is_contaminated(self, text: str) -> bool:
        """Return whether a text shares a run of 13 words with an item."""
        return any(self._index.find([text]))


def _read_strings(path: Path) -> Iterator[str]:
    """Yield a text, or every string of a file's records, also in nested lists and values."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no evaluation file {path} (data.decontaminate).")
    form = detect_form(path)
    if form == "text":
        yield "".join(line for _, line in read_lines(path))
        return
    for record in read_records_of_form(path, form):
        if isinstance(record, RecordError):  # a missed item would be trained on
            raise record
        pending = [record.value]
        while pending:
            match pending.pop():
                case str(text):
                    yield text
                case list(inner):
                    pending.extend(inner)
                case dict(inner):
                    pending.extend(inner.values())


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
        self.items_with_ngrams = set(self._items.tolist())  # those of at least 13 words

    def items_by_ngram(self, ngram_ids: Collection[int]) -> dict[int, set[int]]:
        """Return, for each of these runs, the indices of the items that contain it."""
        window_ids = self._window_index.window_ids
        windows = np.flatnonzero(np.isin(window_ids, list(ngram_ids)))
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
    parts: list[tuple[IndexArray, IndexArray, HashArray]] = []
    start = 0
    while start < len(joined) or not parts:
        gap = NON_WORD_PATTERN.search(joined, start + CHUNK_CHARS)  # a word is never cut
        stop = gap.start() if gap else len(joined)
        letters = np.frombuffer(joined[start:stop].encode("utf-32-le", "surrogatepass"), np.uint32)
        inside = np.zeros(len(letters) + 2, bool)
        inside[1:-1] = _word_character_table()[letters]
        first, last = middles.searchsorted([start, stop])
        inside[middles[first:last] - start + 1] = True
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        starts, stops = edges[::2], edges[1::2]
        hashes = SpanHasher(letters, base).hash(starts, stops)
        parts.append((starts + start, stops + start, hashes))
        start = stop
    starts, stops, hashes = map(np.concatenate, zip(*parts, strict=True))
    return _TokenizedTexts(joined, starts, stops, hashes, np.searchsorted(starts, middles))


@cache
def _word_character_table() -> NDArray[np.bool_]:
    """Return, for each code point, whether it belongs to a word."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in WORD_PATTERN.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table


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


class SpanHasher:
    """Hashes of arbitrary spans of an array: Σ n_j · base^j.

    With the prefix sums computed once, the hash of a span is the difference of two of them, divided
    by the power of its start.
    """

    def __init__(self, tokens: NDArray[Any], base: int = HASH_BASE) -> None:
        bits = max((len(tokens) - 1).bit_length(), MIN_POWER_BITS)
        power, self._inverse = _hash_powers(base, bits)
        self._sums = np.zeros(len(tokens) + 1, np.uint64)
        np.cumsum(tokens * power[: len(tokens)], out=self._sums[1:])

    def hash(self, starts: IndexArray, stops: IndexArray) -> HashArray:
        """Return the hashes of the spans [start, stop); none may be empty."""
        return (self._sums[stops] - self._sums[starts]) * self._inverse[starts]


@lru_cache(2)
def _hash_powers(base: int, bits: int) -> tuple[HashArray, HashArray]:
    """Return base^0, base^1, … modulo 2^64, and their inverses."""
    factors = np.full((2, 2**bits), 1, np.uint64)
    factors[0, 1:], factors[1, 1:] = base, pow(base, -1, 2**64)
    powers, inverses = np.multiply.accumulate(factors, axis=1)
    return powers, inverses


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
