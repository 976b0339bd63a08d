"""Where does text come from? Documents out of text, JSONL and Parquet files.

A document is one piece of text that belongs together. Which side of the held-out split it
falls on depends on its `group` alone: by default its own text, so that equal texts always
fall on the same side; documents made from one file may share the file's name as group.

    *.txt *.md …   one document a file; a long file is cut at blank lines
    *.jsonl        one document a line, from one column
    *.parquet      one document a row, from one column
    *.gz *.zst     of any text or JSONL file
"""

import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gnano.data.zstd import Zstd

LONG_TEXT = 16_384  # characters after which a blank line ends a document in a plain-text file


class Document(NamedTuple):
    text: str
    group: str = ""  # documents of one group stay on one side of the split; "": the text itself


def find_files(patterns: tuple[str, ...]) -> list[Path]:
    """The files that paths and globs name, each once, sorted; a folder means all inside it."""
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            matches = [p for p in path.rglob("*") if p.is_file()]
        elif path.exists():
            matches = [path]
        else:
            matches = [p for p in Path(path.anchor).glob(_relative(path)) if p.is_file()]
        if not matches:
            raise FileNotFoundError(f"No file matches {pattern!r} (looked from {Path.cwd()}).")
        found.update(matches)
    return sorted(found)


def read_documents(path: Path, column: str) -> Iterator[Document]:
    """The non-empty documents of one file, in order.

    Raises ValueError, naming file and line, for what is not readable as its name says.
    """
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        texts = _parquet(path, column)
    elif name.endswith((".jsonl", ".ndjson")):
        texts = _jsonl(path, column)
    else:
        texts = _plain(path)
    return (Document(text) for text in texts if text.strip())


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".zst":
        unpacked = io.BufferedReader(Zstd(path.open("rb"), _need("zstandard", path)), 2**17)
        return io.TextIOWrapper(unpacked, encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text after line {number}: {error}.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged after line {number}: {error}.") from None


def _plain(path: Path) -> Iterator[str]:
    part: list[str] = []
    length = 0
    for _, line in _lines(path):
        part.append(line)
        length += len(line)
        if length >= LONG_TEXT and not line.strip():
            yield "".join(part)
            part, length = [], 0
    yield "".join(part)


def _jsonl(path: Path, column: str) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from None
        value = record.get(column) if isinstance(record, dict) else None
        if value is not None or not isinstance(record, dict) or column not in record:
            yield _text(value, record, column, path)


def _parquet(path: Path, column: str) -> Iterator[str]:
    pyarrow, parquet = _need("pyarrow", path), _need("pyarrow.parquet", path)
    try:
        with parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                _text(None, dict.fromkeys(file.schema_arrow.names), column, path)
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _text(value if value is not None else "", {}, column, path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}.") from None


def _text(value: Any, record: Any, column: str, path: Path) -> str:
    if isinstance(value, str):
        # JSON can spell half of a surrogate pair, which no UTF-8 text can hold
        return value if value.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", value)
    has = f"it has {', '.join(map(repr, record))}" if isinstance(record, dict) else "it has none"
    raise ValueError(
        f"{path} holds no text in a column {column!r} ({has}); name the right one with "
        f"data.sources.NAME.column."
    )


def _need(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"Reading {path} needs {module.split('.')[0]}: pip install 'auto-g-nano[data]'."
        ) from None
