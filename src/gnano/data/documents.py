"""Where does text come from? Documents out of text, JSONL and Parquet files.

A document is one piece of text that belongs together. Which side of the held-out split it
falls on depends on its `group` alone: by default its own text, so that equal texts always
fall on the same side; documents made from one file may share the file's name as group.

    *.txt *.md …   one document a file; a long file is cut at blank lines
    *.jsonl        one document a line, from one column
    *.parquet      one document a row, from one column
    *.gz *.zst     of any text or JSONL file

In files read as text every line ends in LF, whether CR, LF or both stood there (Python's
universal newlines): what a model need not learn twice. What JSONL and Parquet spell inside
their strings stays as it is.
"""

import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gnano.data.zstd import Zstd

LONG_TEXT = 16_384  # characters after which a blank line ends a document in a plain-text file
NAME_ANOTHER = "set column to the right one"


class Document(NamedTuple):
    text: str
    group: str = ""  # documents of one group stay on one side of the split; "": the text itself


def find_files(patterns: tuple[str, ...]) -> list[Path]:
    """The files that paths and globs name, sorted; a folder means all inside it.

    A file reached by several ways (`a`, `/here/a`, `b/../a`, a link) is found once, by the
    name it was first given.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            matches = [p for p in path.rglob("*") if p.is_file()]
        elif path.exists():
            matches = [path]
        elif any("**" in part and part != "**" for part in path.parts):
            raise ValueError(
                f"{pattern!r} is no pattern: ** stands for any folders and must be alone between "
                f"two slashes, as in data/**/*.txt; within a name write * instead."
            )
        else:
            matches = [p for p in Path(path.anchor).glob(_relative(path)) if p.is_file()]
        if not matches:
            raise FileNotFoundError(f"No file matches {pattern!r} (looked from {Path.cwd()}).")
        for match in sorted(matches):
            found.setdefault(match.resolve(), match)
    return sorted(found.values())


def read_documents(path: Path, column: str) -> Iterator[Document]:
    """The non-empty documents of one file, in order.

    Raises ValueError, naming file and line, for what is not readable as its name says.
    """
    match format_of(path):
        case "parquet":
            texts = _parquet(path, column)
        case "jsonl" | "ndjson":
            texts = _jsonl(path, column)
        case _:
            texts = _plain(path)
    return (Document(text) for text in texts if text.strip())


def format_of(path: Path) -> str:
    """The ending of a file's name, below that of its packing: "jsonl" of a.jsonl.gz."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix.removeprefix(".")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, unpacked if need be, and their numbers."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text after line {number}: {error}.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged after line {number}: {error}.") from None


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSONL file and the numbers of their lines."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from None
        yield number, record


def read_rows(path: Path, column: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file: all their columns, or the one named."""
    pyarrow, parquet = _need("pyarrow", path), _need("pyarrow.parquet", path)
    try:
        # buffered, and only what is asked for: otherwise a row group's column is held whole
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            names = file.schema_arrow.names
            if column is not None and column not in names:
                raise _no_text(str(path), column, names)
            for batch in file.iter_batches(256, columns=None if column is None else [column]):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{path} is not a readable Parquet file: {why}.") from None


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)


def _open(path: Path) -> IO[str]:
    if path.suffix in {".gz", ".zst"} and not path.stat().st_size:
        raise EOFError("it is empty")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".zst":
        unpacked = io.BufferedReader(Zstd(path.open("rb"), _need("zstandard", path)), 2**17)
        return io.TextIOWrapper(unpacked, encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _plain(path: Path) -> Iterator[str]:
    part: list[str] = []
    length = 0
    for _, line in read_lines(path):
        part.append(line)
        length += len(line)
        if length >= LONG_TEXT and not line.strip():
            yield "".join(part)
            part, length = [], 0
    yield "".join(part)


def _jsonl(path: Path, column: str) -> Iterator[str]:
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        if not isinstance(record, dict) or column not in record:
            raise _no_text(where, column, record if isinstance(record, dict) else ())
        if record[column] is not None:
            text = _text(record[column], where, column)
            # JSON can spell half of a surrogate pair, which no UTF-8 text can hold
            yield text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def _parquet(path: Path, column: str) -> Iterator[str]:
    for row in read_rows(path, column):
        if row[column] is not None:
            yield _text(row[column], str(path), column)


def _text(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"{where} holds no text in a column {column!r} (what is there is of type "
            f"{type(value).__name__}); {NAME_ANOTHER}."
        )
    return value


def _no_text(where: str, column: str, there: Collection[str]) -> ValueError:
    has = ", ".join(map(repr, there)) or "none"
    return ValueError(
        f"{where} holds no text in a column {column!r} (it has {has}); {NAME_ANOTHER}."
    )


def _need(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"Reading {path} needs {module.split('.')[0]}: pip install 'auto-g-nano[data]'."
        ) from None
