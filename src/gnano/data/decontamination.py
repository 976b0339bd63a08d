"""Does a document share a run of 13 words with an evaluation item? Then it is not trained on.

Any shared run drops the document (after Brown et al. 2020, arXiv:2005.14165, appendix C). A
word is a run of letters, digits and _ in lower case, so that neither case nor punctuation nor
line breaks hide an item. Every string in an evaluation file is an item of its own; one of
fewer than 13 words has no such run and is not looked for.

The items lie in memory as one row of word numbers, 0 between two of them. A document becomes
such a row too, with 0 for each word that no item has, and its runs are looked up:

    items     0 1 2 3 4 5 … 0 3 9 …      every run: hash ─▶ bit table, and where it stands
                                                                │             │
    document  0 0 1 2 3 4 5 … 0 7 …    rolling hash ─▶ marked there? ─▶ the same 13 words?

The table turns away nearly all runs of a clean document. What it lets through is compared
word by word, so the answer is exact, and the same in every process and on every machine.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnano.data.documents import format_of, read_lines, read_records, read_rows

NGRAM = 13  # words
MARKS = 64  # bits of the table for each n-gram looked for: at most 1 in 64 is marked
BASE = 0x9E3779B97F4A7C15  # of the rolling hash: odd, its bits in no order
WORD = re.compile(r"\w+")

Numbers = NDArray[np.uint64]
Row = NDArray[np.uint32]


class Decontamination:
    """The 13-grams of evaluation files: .jsonl, .json, .parquet, else text; also .gz and .zst.

    Raises FileNotFoundError or ValueError, naming the file, where one is missing, cannot be
    read or holds no item of 13 words.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._numbers: dict[str, int] = {}  # of every word of an item, from 1
        self._row = self._read(files)
        starts = _starts(self._row)
        for self._base in count(BASE, 2):  # in practice the first one tells all n-grams apart
            hashes = _rolling_hash(self._row.astype(np.uint64), self._base)[starts]
            self._hashes, first, which = np.unique(hashes, return_index=True, return_inverse=True)
            self._places = starts[first]
            if _same_words(self._row, starts, self._places[which]):
                break
        self._shift = 64 - (MARKS * self.ngrams + 7).bit_length()
        self._table = np.zeros(2 ** (64 - self._shift - 3), np.uint8)
        byte, bit = self._mark(self._hashes)
        np.bitwise_or.at(self._table, byte, np.left_shift(1, bit, dtype=np.uint8))

    @property
    def ngrams(self) -> int:
        """How many different 13-grams are looked for."""
        return len(self._hashes)

    def contains(self, text: str) -> bool:
        """Whether the text shares a run of 13 words with an item."""
        words = WORD.findall(text.lower())
        if len(words) < NGRAM or not self.ngrams:
            return False
        number = self._numbers.get
        row = np.fromiter([number(word, 0) for word in words], np.uint64, len(words))
        hashes = _rolling_hash(row, self._base)
        byte, bit = self._mark(hashes)
        marked = np.flatnonzero(self._table[byte] >> bit & 1)
        found = np.searchsorted(self._hashes, hashes[marked]).clip(max=self.ngrams - 1)
        hits = self._hashes[found] == hashes[marked]
        return any(
            np.array_equal(row[start : start + NGRAM], self._row[place : place + NGRAM])
            for start, place in zip(marked[hits], self._places[found[hits]], strict=True)
        )

    def _read(self, files: Sequence[Path]) -> Row:
        """The items' words as numbers, 0 before and after each item."""
        numbers = self._numbers
        row = array("I", [0])
        for path in files:
            before = len(row)
            for text in _strings(_content(path)):
                words = WORD.findall(text.lower())
                if len(words) >= NGRAM:
                    row.extend([numbers.setdefault(word, len(numbers) + 1) for word in words])
                    row.append(0)
            if len(row) == before:
                raise ValueError(
                    f"{path} holds no text of {NGRAM} words or more, so nothing of it can be "
                    f"looked for: take it out of data.decontaminate."
                )
        return np.array(row, np.uint32)

    def _mark(self, hashes: Numbers) -> tuple[Numbers, NDArray[np.uint8]]:
        """Where in the table a hash is marked: which byte, and which bit of it."""
        place = hashes >> np.uint64(self._shift)
        return place >> np.uint64(3), place.astype(np.uint8) & np.uint8(7)


def _content(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no evaluation file {path} (data.decontaminate).")
    match format_of(path):
        case "jsonl" | "ndjson":
            yield from (record for _, record in read_records(path))
        case "parquet":
            yield from read_rows(path)
        case "json":
            whole = "".join(line for _, line in read_lines(path))
            try:
                yield json.loads(whole)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path} is not JSON: {error}.") from None
        case _:
            yield "".join(line for _, line in read_lines(path))


def _strings(values: Iterator[Any]) -> Iterator[str]:
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


def _rolling_hash(row: Numbers, base: int) -> Numbers:
    """For each window of 13 numbers n, Σ n_i · base^(12 - i) modulo 2^64."""

    def join(left: Numbers, right: Numbers, size: int) -> Numbers:
        """Windows of `left`, each with the window of `size` numbers that follows it."""
        follows = right[len(row) - len(left) + 1 :]
        return left[: len(follows)] * np.uint64(pow(base, size, 2**64)) + follows

    two = join(row, row, 1)
    four = join(two, two, 2)
    eight = join(four, four, 4)
    return join(join(eight, four, 4), row, 1)


def _starts(row: Row) -> Row:
    """Where windows of 13 numbers begin that hold no 0; the row itself begins with one."""
    zeros = np.cumsum(row == 0, dtype=np.uint32)
    return (np.flatnonzero(zeros[NGRAM:] == zeros[:-NGRAM]) + 1).astype(np.uint32)


def _same_words(row: Row, starts: Row, others: Row) -> bool:
    """Whether the windows at these places hold, each for each, the same numbers."""
    differ = starts != others
    one, two = starts[differ], others[differ]
    return all(np.array_equal(row[one + i], row[two + i]) for i in range(NGRAM))
