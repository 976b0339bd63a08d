"""Drops documents that share a run of 13 words with an evaluation item.

Any shared run drops the document (after Brown et al. 2020, arXiv:2005.14165, appendix C);
`ngrams.py` says what a word is and how runs are found. Every string in an evaluation file is
an item of its own; one of fewer than 13 words has no such run and is not looked for.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gnano.data.bad_records import RecordError
from gnano.data.ngrams import NGRAM_WORDS, NGramIndex
from gnano.data.records import detect_form, read_records_of_form
from gnano.data.text_files import read_lines


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
