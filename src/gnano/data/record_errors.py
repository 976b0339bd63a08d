"""Records that cannot be used: left out, counted, and the first of them shown.

Readers give a `RecordError` in the place of one that they cannot read. `BadRecords` takes them
out of what was read, and refuses the whole where their share is larger than the recipe allows
(`data.max_bad_share`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gnano.config.data_config import MAX_BAD_SHARE

RecordT = TypeVar("RecordT")
MAX_SHOWN_RECORDS = 5  # bad records that are shown


class RecordError(ValueError):
    """A record that cannot be used; where `line` is 0, so many `records` of a file."""

    def __init__(self, path: Path, line: int, reason: str, record_count: int = 1) -> None:
        self.path, self.line, self.reason, self.record_count = (
            path,
            line,
            reason.rstrip("."),
            record_count,
        )
        super().__init__(f"{format_record_error(str(path), line, self.reason)}.")


def format_record_error(file: str, line: int, reason: str) -> str:
    """Where a record is, and what is wrong with it."""
    place = "row" if file.lower().endswith(".parquet") else "line"
    return f"{file}{f', {place} {line:,}' if line else ''}: {reason}"


@dataclass
class BadRecordCounter:
    """Counts what is read, and what of it cannot be used.

    Where that is never allowed (`strict`), the first of them is raised.
    """

    strict: bool = False
    read_count: int = 0  # records, with those that cannot be used
    bad_count: int = 0
    examples: list[RecordError] = field(default_factory=list)

    def filter(self, records: Iterable[RecordT | RecordError]) -> Iterator[RecordT]:
        """The records that can be used."""
        for record in records:
            if isinstance(record, RecordError):
                self.add(record)
            else:
                self.read_count += 1
                yield record

    def add(self, record: RecordError) -> None:
        if self.strict:
            raise record
        self.read_count += record.record_count
        self.bad_count += record.record_count
        if len(self.examples) < MAX_SHOWN_RECORDS:
            self.examples.append(record)

    def format_summary(self) -> str:
        """The bad ones in a few lines; "" where there are none."""
        return format_bad_records(
            self.bad_count, self.read_count, [str(record)[:-1] for record in self.examples]
        )

    def check(self, max_share: float = MAX_BAD_SHARE, prefix: str = "") -> None:
        """Raises ValueError where more than the share `most` of the records cannot be used."""
        if self.bad_count > max_share * self.read_count:
            raise ValueError(format_refusal(f"{prefix}{self.format_summary()}", max_share))


def format_bad_records(bad_count: int, read_count: int, examples: Iterable[str]) -> str:
    """How many records cannot be used, and the first of them, a line each."""
    if not bad_count:
        return ""
    lines = "".join(f"\n  {one}" for one in examples)
    return f"{bad_count:,} of {read_count:,} records cannot be used:{lines}"


def format_refusal(summary: str, max_share: float) -> str:
    """A notice of bad records as an error."""
    return (
        f"{summary}\nAt most {max_share:.3g} of the records may be left out (data.max_bad_share): mend "
        f"the files, or allow more."
    )
