"""Documents out of text, JSON lines, CSV and Parquet files.

A document is one piece of text that belongs together. Which side of the held-out split it
falls on depends on its `group` alone: by default its own text, so that equal texts always
fall on the same side; documents made from one file may share the file's name as group.

    text      one document a file; a long file is cut at blank lines
    records   one document each, from one column (`records.py` says what files hold some)

In files read as text every line ends in LF, whether CR, LF or both stood there (Python's
universal newlines): what a model need not learn twice. What JSON and Parquet spell inside
their strings stays as it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gnano.data.bad_records import RecordError
from gnano.data.records import (
    NAME_ANOTHER,
    Record,
    form_of,
    no_column,
    read_form,
    read_rows,
)
from gnano.data.text_files import check_text, read_lines, undecodable

LONG_TEXT = 16_384  # characters after which a blank line ends a document in a plain-text file


class Document(NamedTuple):
    text: str  # blank where a record's text is empty or null
    group: str = ""  # documents of one group stay on one side of the split; "": the text itself


def read_documents(path: Path, column: str, check: bool = True) -> Iterator[Document | RecordError]:
    """The documents of one file, in order; a bad record in the place of what cannot be used.

    Of a damaged archive or Parquet file nothing is used; without `check`, for a glance, what comes
    before the damage is.
    """
    try:
        form = form_of(path)
        if form == "parquet":
            rows = read_rows(path, column, check)
            yield from (_document(path, Record(*row), column) for row in enumerate(rows, 1))
        elif form == "text":
            yield from _texts(path, check)
        else:
            for record in read_form(path, form, check):
                found = (
                    record if isinstance(record, RecordError) else _document(path, record, column)
                )
                if form == "object" and isinstance(found, RecordError):
                    yield from _texts(path, check)  # a document in JSON, such as a configuration
                else:
                    yield found
    except RecordError as error:
        yield error


def read_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of a file's documents, blank ones left out; raises ValueError for a bad record."""
    check_text(path)
    for document in read_documents(path, column):
        if isinstance(document, RecordError):
            raise document
        if document.text.strip():
            yield document.text


def check_column(paths: Sequence[Path], column: str) -> None:
    """Raises ValueError where a column is named, and all files are plain text, which has none."""
    if column != "text" and paths and all(_form(path) == "text" for path in paths):
        raise ValueError(
            f"column is {column!r}, but {paths[0]}{' …' * (len(paths) > 1)} is plain text, which "
            f"has no columns: leave column out."
        )


def _form(path: Path) -> str:
    try:
        return form_of(path)
    except RecordError:
        return "damaged"


def _texts(path: Path, check: bool) -> Iterator[Document | RecordError]:
    part: list[str] = []
    length = first = 0
    for number, line in read_lines(path, check):
        first = first if part else number
        part.append(line)
        length += len(line)
        if length >= LONG_TEXT and not line.strip():
            yield _text(path, first, part)
            part, length = [], 0
    if part or not first:
        yield _text(path, first, part)


def _text(path: Path, line: int, part: list[str]) -> Document | RecordError:
    text = "".join(part)
    return undecodable(path, line, text) or Document(text)


def _document(path: Path, record: Record, column: str) -> Document | RecordError:
    line, value = record
    if not isinstance(value, dict) or column not in value:
        return RecordError(path, line, no_column(column, value if isinstance(value, dict) else ()))
    text = value[column]
    if text is None or isinstance(text, str):
        return Document(text or "")
    kind = type(text).__name__
    return RecordError(
        path,
        line,
        f"it holds no text in a column {column!r} (what is there is of type {kind}); "
        f"{NAME_ANOTHER}",
    )
