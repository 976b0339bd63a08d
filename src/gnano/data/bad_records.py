"""Records that cannot be used: left out, counted, and the first of them shown.

Readers give a `RecordError` in the place of one that they cannot read. `BadRecords` takes them
out of what was read, and refuses the whole where their share is larger than the recipe allows
(`data.max_bad_share`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MAX_BAD_SHARE = 0.05  # a wrong column, form or encoding spoils nearly all records, a slip but few
SHOWN = 5  # bad records that are shown


class RecordError(ValueError):
    """A record that cannot be used; where `line` is 0, so many `records` of a file."""

    def __init__(self, path: Path, line: int, reason: str, records: int = 1) -> None:
        self.path, self.line, self.reason, self.records = path, line, reason.rstrip("."), records
        super().__init__(f"{described(str(path), line, self.reason)}.")


def described(file: str, line: int, reason: str) -> str:
    """Where a record is, and what is wrong with it."""
    place = "row" if file.lower().endswith(".parquet") else "line"
    return f"{file}{f', {place} {line:,}' if line else ''}: {reason}"


@dataclass
class BadRecords:
    """Counts what is read, and what of it cannot be used.

    Where that is never allowed (`strict`), the first of them is raised.
    """

    strict: bool = False
    read: int = 0  # records, with those that cannot be used
    bad: int = 0
    first: list[RecordError] = field(default_factory=list)

    def sift(self, records: Iterable[T | RecordError]) -> Iterator[T]:
        """The records that can be used."""
        for record in records:
            if isinstance(record, RecordError):
                self.add(record)
            else:
                self.read += 1
                yield record

    def add(self, record: RecordError) -> None:
        if self.strict:
            raise record
        self.read += record.records
        self.bad += record.records
        if len(self.first) < SHOWN:
            self.first.append(record)

    def notice(self) -> str:
        """The bad ones in a few lines; "" where there are none."""
        return bad_notice(self.bad, self.read, [str(record)[:-1] for record in self.first])

    def check(self, most: float = MAX_BAD_SHARE, where: str = "") -> None:
        """Raises ValueError where more than the share `most` of the records cannot be used."""
        if self.bad > most * self.read:
            raise ValueError(refusal(f"{where}{self.notice()}", most))


def bad_notice(bad: int, read: int, first: Iterable[str]) -> str:
    """How many records cannot be used, and the first of them, a line each."""
    if not bad:
        return ""
    lines = "".join(f"\n  {one}" for one in first)
    return f"{bad:,} of {read:,} records cannot be used:{lines}"


def refusal(notice: str, most: float) -> str:
    """A notice of bad records as an error."""
    return (
        f"{notice}\nAt most {most:.3g} of the records may be left out (data.max_bad_share): mend "
        f"the files, or allow more."
    )
