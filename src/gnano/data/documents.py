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
    COLUMN_HINT,
    Record,
    detect_form,
    missing_column_reason,
    read_parquet_rows,
    read_records_of_form,
)
from gnano.data.text_files import check_text, find_undecodable, read_lines

MIN_CHARS_TO_SPLIT = (
    16_384  # characters after which a blank line ends a document in a plain-text file
)


class Document(NamedTuple):
    text: str  # blank where a record's text is empty or null
    split_group: str = (
        ""  # documents of one group stay on one side of the split; "": the text itself
    )


def read_documents(
    path: Path, column: str, verify: bool = True
) -> Iterator[Document | RecordError]:
    """The documents of one file, in order; a bad record in the place of what cannot be used.

    Of a damaged archive or Parquet file nothing is used; without `check`, for a glance, what comes
    before the damage is.
    """
    try:
        form = detect_form(path)
        if form == "parquet":
            rows = read_parquet_rows(path, column, verify)
            yield from (
                _record_to_document(path, Record(*row), column) for row in enumerate(rows, 1)
            )
        elif form == "text":
            yield from _split_text(path, verify)
        else:
            for record in read_records_of_form(path, form, verify):
                found = (
                    record
                    if isinstance(record, RecordError)
                    else _record_to_document(path, record, column)
                )
                if form == "object" and isinstance(found, RecordError):
                    yield from _split_text(
                        path, verify
                    )  # a document in JSON, such as a configuration
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
    if column != "text" and paths and all(_form_or_damaged(path) == "text" for path in paths):
        raise ValueError(
            f"column is {column!r}, but {paths[0]}{' …' * (len(paths) > 1)} is plain text, which "
            f"has no columns: leave column out."
        )


def _form_or_damaged(path: Path) -> str:
    try:
        return detect_form(path)
    except RecordError:
        return "damaged"


def _split_text(path: Path, verify: bool) -> Iterator[Document | RecordError]:
    part: list[str] = []
    length = first = 0
    for number, line in read_lines(path, verify):
        first = first if part else number
        part.append(line)
        length += len(line)
        if length >= MIN_CHARS_TO_SPLIT and not line.strip():
            yield _join_lines(path, first, part)
            part, length = [], 0
    if part or not first:
        yield _join_lines(path, first, part)


def _join_lines(path: Path, line: int, lines: list[str]) -> Document | RecordError:
    text = "".join(lines)
    return find_undecodable(path, line, text) or Document(text)


def _record_to_document(path: Path, record: Record, column: str) -> Document | RecordError:
    line, value = record
    if not isinstance(value, dict) or column not in value:
        return RecordError(
            path, line, missing_column_reason(column, value if isinstance(value, dict) else ())
        )
    text = value[column]
    if text is None or isinstance(text, str):
        return Document(text or "")
    kind = type(text).__name__
    return RecordError(
        path,
        line,
        f"it holds no text in a column {column!r} (what is there is of type {kind}); {COLUMN_HINT}",
    )
