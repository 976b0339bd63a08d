"""Which records are there, and which cannot be used? Bad ones are counted and named, not hidden."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnano.data.documents import find_files, format_of, read_lines, read_rows
from gnano.data.instructions.conversations import Conversation, conversation_of

T = TypeVar("T")
SHOWN = 5  # bad records that are shown


@dataclass(frozen=True)
class Bad:
    file: Path
    number: int  # of the line, or of the record where a file has no lines; from 1
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.number:,}: {self.reason}"


@dataclass(frozen=True)
class Reading(Generic[T]):
    records: list[T]  # what was made of them
    bad: list[Bad]

    def complaint(self) -> str:
        """The bad ones in a few lines; "" where there are none."""
        if not self.bad:
            return ""
        whole = len(self.bad) + len(self.records)
        first = "\n".join(f"  {bad}" for bad in self.bad[:SHOWN])
        more = f"\n  … and {len(self.bad) - SHOWN:,} more" if len(self.bad) > SHOWN else ""
        return f"{len(self.bad):,} of {whole:,} records cannot be used:\n{first}{more}"


def read_conversations(patterns: Sequence[str], *, refuse: bool = False) -> Reading[Conversation]:
    """All conversations of these files; see `read_records`."""
    return read_records(patterns, conversation_of, refuse=refuse)


def read_records(
    patterns: Sequence[str], make: Callable[[Any], T], *, refuse: bool = False
) -> Reading[T]:
    """What `make` makes of all records of these files, in order: JSONL, a JSON list, or Parquet.

    Records that cannot be used, of which `make` raises ValueError, are left out, or, to `refuse`
    them, raise ValueError; so do files in which none can be used.
    """
    records: list[T] = []
    bad: list[Bad] = []
    for path in find_files(tuple(patterns)):
        for number, record in _records(path):
            try:
                if isinstance(record, ValueError):
                    raise record
                records.append(make(record))
            except ValueError as error:
                bad.append(Bad(path, number, str(error)))
    reading = Reading(records, bad)
    if bad and (refuse or not records):
        raise ValueError(reading.complaint())
    if not records:
        raise ValueError(f"{', '.join(patterns)}: there is no record in it.")
    return reading


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbers and records; a ValueError in the place of one that cannot be read."""
    match format_of(path):
        case "parquet":
            yield from enumerate(read_rows(path), 1)
        case "json":
            text = "".join(line for _, line in read_lines(path))
            content = _parsed(text)
            yield from enumerate(content, 1) if isinstance(content, list) else [(1, content)]
        case _:
            for number, line in read_lines(path):
                if line.strip():
                    yield number, _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return ValueError(f"it is not JSON: {error}")
