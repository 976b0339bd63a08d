"""Bad records, which cannot be used: left out, counted, and the first of them shown.

Readers yield a `RecordError` in place of a record that they cannot read. `BadRecordCounter` filters
these out, and raises if their share is larger than the recipe allows (`data.max_bad_share`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gnano.config.data_config import MAX_BAD_SHARE

RecordT = TypeVar("RecordT")
MAX_SHOWN_RECORDS = 5  # bad records that are shown


class RecordError(ValueError):
    """A record that cannot be used; `line` 0 stands for `record_count` records of a file."""

    def __init__(self, path: Path, line: int, reason: str, record_count: int = 1) -> None:
        self.path, self.line, self.record_count = path, line, record_count
        self.reason = reason.rstrip(".")
        super().__init__(f"{format_record_error(str(path), line, self.reason)}.")


def format_record_error(file: str, line: int, reason: str) -> str:
    """Return where a record is and what is wrong with it."""
    unit = "row" if file.lower().endswith(".parquet") else "line"
    return f"{file}{f', {unit} {line:,}' if line else ''}: {reason}"


@dataclass
class BadRecordCounter:
    """Counts records and bad records; if `strict`, the first bad one is raised."""

    strict: bool = False
    read_count: int = 0  # records, including bad ones
    bad_count: int = 0
    examples: list[RecordError] = field(default_factory=list)

    def filter(self, records: Iterable[RecordT | RecordError]) -> Iterator[RecordT]:
        """Yield the records that can be used."""
        for record in records:
            if isinstance(record, RecordError):
                self.add(record)
            else:
                self.read_count += 1
                yield record

    def add(self, record: RecordError) -> None:
        """Count a bad record."""
        if self.strict:
            raise record
        self.read_count += record.record_count
        self.bad_count += record.record_count
        if len(self.examples) < MAX_SHOWN_RECORDS:
            self.examples.append(record)

    def format_summary(self) -> str:
        """Return a few lines about the bad records; "" where there are none."""
        examples = [str(record)[:-1] for record in self.examples]
        return format_bad_records(self.bad_count, self.read_count, examples)

    def check(self, max_share: float = MAX_BAD_SHARE, prefix: str = "") -> None:
        """Raise ValueError if more than this share of the records is bad."""
        if self.bad_count > max_share * self.read_count:
            raise ValueError(format_refusal(f"{prefix}{self.format_summary()}", max_share))


def format_bad_records(bad_count: int, read_count: int, examples: Iterable[str]) -> str:
    """Return how many records cannot be used, and the examples, one per line."""
    if not bad_count:
        return ""
    lines = "".join(f"\n  {one}" for one in examples)
    return f"{bad_count:,} of {read_count:,} records cannot be used:{lines}"


def format_refusal(summary: str, max_share: float) -> str:
    """Return a summary of bad records as an error message."""
    return (
        f"{summary}\nAt most {max_share:.3g} of the records may be left out (data.max_bad_share): "
        f"correct the files, or allow more."
    )
