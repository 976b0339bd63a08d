"""Readers of documents and records: text, JSON, JSON lines, CSV and Parquet files.

A document is one connected piece of text. Its `split_group` alone determines whether it is held
out: by default its own text, so that equal texts are always on the same side; documents made from
one file may use the file's name as group.

    text      one document per file; a long file is split at blank lines
    records   one document per record, from one column

In text files every line ends in LF, whether LF, CRLF or CR was there (Python's universal newlines).
Strings inside JSON and Parquet are not changed.

A file's name and content together determine its form; compression makes no difference:

    parquet  *.parquet, or its first bytes
    csv      *.csv, with the column names in the first line
    tsv      *.tsv, the same with tabs
    lines    *.jsonl *.jsonlines *.jl *.ndjson *.json, or two JSON objects in the first two lines
    list     the same names, where the first character is [
    object   *.json whose one object spans several lines
    text     everything else
"""

import csv
import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gnano.data.text_files import RecordError, check_text, find_undecodable, read_lines
from gnano.utils.platform_support import require

FileForm = Literal["parquet", "csv", "tsv", "lines", "list", "object", "text"]
MIN_CHARS_TO_SPLIT = 16_384  # characters after which a blank line ends a document of a text file
JSON_SUFFIXES = (".jsonl", ".jsonlines", ".jl", ".ndjson", ".json")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # which no UTF-8 text can hold
LIST_SEPARATOR = re.compile(r"[\s,]*")

csv.field_size_limit(2**31 - 1)  # a document may be long


class Document(NamedTuple):
    """A piece of text."""

    text: str  # blank where a record's text is empty or null
    # documents of one group stay on one side of the held-out split; "": the text itself
    split_group: str = ""


class Record(NamedTuple):
    """The content of a record."""

    line: int  # where it starts; in Parquet, the number of its row
    value: Any


def read_documents(
    path: Path, column: str, verify: bool = True
) -> Iterator[Document | RecordError]:
    """Yield the documents of a file in order, and an error in place of each bad record.

    Nothing of a damaged archive or Parquet file is used; without `verify`, what comes before the
    damage is.
    """
    try:
        form = detect_form(path)
        if form == "text":
            yield from _split_text(path, verify)
            return
        for record in read_records_of_form(path, form, verify, column):
            if isinstance(record, RecordError):
                found: Document | RecordError = record
            elif not isinstance(record.value, dict) or column not in record.value:
                columns = record.value if isinstance(record.value, dict) else ()
                found = _no_text_error(path, record.line, column, f"it has {_join(columns)}")
            elif isinstance(text := record.value[column], str | None):
                found = Document(text or "")
            else:
                kind = f"its type is {type(text).__name__}"
                found = _no_text_error(path, record.line, column, kind)
            if form == "object" and isinstance(found, RecordError):
                yield from _split_text(path, verify)  # a JSON document, such as a configuration
            else:
                yield found
    except RecordError as error:
        yield error


def read_texts(path: Path, column: str) -> Iterator[str]:
    """Yield the texts of a file's nonblank documents; raise ValueError for a bad record."""
    check_text(path)
    for document in read_documents(path, column):
        if isinstance(document, RecordError):
            raise document
        if document.text.strip():
            yield document.text


def check_column(paths: Sequence[Path], column: str) -> None:
    """Raise ValueError if a column is set and all files are plain text, which has no columns."""
    if column == "text":
        return
    for path in paths:
        try:
            if detect_form(path) != "text":
                return
        except RecordError:
            return
    if paths:
        raise ValueError(
            f"column is {column!r}, but {paths[0]}{' …' * (len(paths) > 1)} is plain text, which "
            f"has no columns: remove column."
        )


def _split_text(path: Path, verify: bool) -> Iterator[Document | RecordError]:
    lines: list[str] = []
    length = first = 0
    for number, line in read_lines(path, verify):
        if length >= MIN_CHARS_TO_SPLIT and not lines[-1].strip():
            text = "".join(lines)
            yield find_undecodable(path, first, text) or Document(text)
            lines, length = [], 0
        first = first if lines else number
        lines.append(line)
        length += len(line)
    text = "".join(lines)
    yield find_undecodable(path, first, text) or Document(text)


def detect_form(path: Path) -> FileForm:
    """Return the form of a file; raise RecordError for one that cannot be read."""
    # without compression: ".jsonl" for A.JSONL.gz
    suffix = Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    with path.open("rb") as file:
        if suffix == ".parquet" or file.read(4) == b"PAR1":
            return "parquet"
    if suffix in (".csv", ".tsv"):
        return "csv" if suffix == ".csv" else "tsv"
    lines = (line.strip() for _, line in read_lines(path, verify=False) if line.strip())
    first, second = [*islice(lines, 2), "", ""][:2]
    if suffix not in JSON_SUFFIXES:
        return "lines" if _is_json_object(first) and _is_json_object(second) else "text"
    if first.startswith("[") and not (second and first.endswith("]")):
        return "list"
    is_one_line = not second or first.endswith("}") or _is_json_object(second)
    return "lines" if is_one_line or suffix != ".json" or not first.startswith("{") else "object"


def _is_json_object(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_records(path: Path) -> Iterator[Record | RecordError]:
    """Yield the records of a file; an error for a line that holds none, and for a damaged file."""
    try:
        yield from read_records_of_form(path, detect_form(path))
    except RecordError as error:
        yield error


def read_records_of_form(
    path: Path, form: FileForm, verify: bool = True, column: str | None = None
) -> Iterator[Record | RecordError]:
    """Yield the records of a file of this form; raise RecordError if it is damaged.

    Of a Parquet file, only the given column is read.
    """
    match form:
        case "parquet":
            if verify:
                deque(_iter_parquet_rows(path, column), maxlen=0)
            for number, row in enumerate(_iter_parquet_rows(path, column), 1):
                yield Record(number, row)
        case "csv" | "tsv":
            yield from _read_csv(path, "," if form == "csv" else "\t", verify)
        case "list":
            yield from _read_json_list(path, verify)
        case "object":
            yield _parse_json_record(path, 1, "".join(line for _, line in read_lines(path, verify)))
        case _:
            for number, line in read_lines(path, verify):
                if line.strip():
                    yield _parse_json_record(path, number, line)


def _parse_json_record(path: Path, line: int, text: str) -> Record | RecordError:
    if bad := find_undecodable(path, line, text):
        return bad
    try:
        return Record(line, _replace_surrogates(text, json.loads(text)))
    except (ValueError, RecursionError) as error:
        return RecordError(path, line, _json_error_reason(error))


def _replace_surrogates(text: str, value: Any) -> Any:
    """Replace lone surrogates in parsed JSON text by U+FFFD."""
    if "\\ud" not in text and "\\uD" not in text:
        return value
    return json.loads(LONE_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))


def _json_error_reason(error: Exception) -> str:
    return f"it is not JSON ({str(error).replace('line 1 column', 'column')})"


def _read_json_list(path: Path, verify: bool) -> Iterator[Record | RecordError]:
    text = "".join(line for _, line in read_lines(path, verify))
    line, start = 1, 0
    end = text.index("[") + 1
    while True:
        gap = LIST_SEPARATOR.match(text, end)
        assert gap is not None
        line, start = line + text.count("\n", start, gap.end()), gap.end()
        if text.startswith("]", start) and not text[start + 1 :].strip():
            return
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            reason = f"{_json_error_reason(error)}, nor is what follows in the list"
            yield RecordError(path, line, reason, text.count("\n", start) + 1)
            return
        part = text[start:end]
        yield find_undecodable(path, line, part) or Record(line, _replace_surrogates(part, value))


def _read_csv(path: Path, delimiter: str, verify: bool) -> Iterator[Record | RecordError]:
    lines = (line for _, line in read_lines(path, verify))
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    while True:
        previous = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"it is not CSV ({error})"
            yield RecordError(path, previous + 1, reason, reader.line_num - previous)
            continue
        text = "".join(value for value in row.values() if isinstance(value, str))
        line = reader.line_num - text.count("\n")
        if None in row:
            yield RecordError(path, line, "it has more fields than the first line")
        else:
            yield find_undecodable(path, line, text) or Record(line, row)


def _iter_parquet_rows(path: Path, column: str | None) -> Iterator[dict[str, Any]]:
    require("pyarrow", "data", f"Reading {path} needs pyarrow")
    import pyarrow
    from pyarrow import parquet

    read = 0
    try:
        # buffered reading of one column: otherwise the complete column of a row group is in memory
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            names = file.schema_arrow.names
            if column is not None and column not in names:
                rows = max(file.metadata.num_rows, 1)
                raise _no_text_error(path, 0, column, f"it has {_join(names)}", rows)
            for batch in file.iter_batches(256, columns=None if column is None else [column]):
                read += len(batch)
                yield from batch.to_pylist()
    except (FileNotFoundError, PermissionError):
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = str(error).rstrip(".")
        reason = f"it is not a readable Parquet file ({cause}), so nothing of it is used"
        raise RecordError(path, 0, reason, read + 1) from None


def _no_text_error(
    path: Path, line: int, column: str, detail: str, record_count: int = 1
) -> RecordError:
    reason = f"it holds no text in a column {column!r} ({detail}); set column to the right one"
    return RecordError(path, line, reason, record_count)


def _join(columns: Collection[str]) -> str:
    return ", ".join(map(repr, columns)) or "none"
