"""What is made of all records of some files; bad ones are left out, counted and named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from gnano.data.bad_records import MAX_BAD_SHARE, BadRecords, RecordError
from gnano.data.file_search import find_files
from gnano.data.instructions.conversations import Conversation, conversation_of
from gnano.data.records import read_records as records_of

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    records: list[T]  # what was made of them
    bad: BadRecords = field(default_factory=BadRecords)
    left_out: str = ""  # of the files, which and why

    @property
    def notices(self) -> list[str]:
        """What to tell: of bad records, and of files that were left out."""
        return [notice for notice in (self.left_out, self.bad.notice()) if notice]


def read_conversations(
    patterns: Sequence[str], max_bad_share: float = MAX_BAD_SHARE
) -> Reading[Conversation]:
    """All conversations of these files; see `read_records`."""
    return read_records(patterns, conversation_of, max_bad_share)


def read_records(
    patterns: Sequence[str], make: Callable[[Any], T], max_bad_share: float = MAX_BAD_SHARE
) -> Reading[T]:
    """What `make` makes of all records of these files, in order.

    Records of which `make` raises ValueError are bad ones. Raises ValueError where their share is
    larger than `max_bad_share`, or nothing is left.
    """
    found = find_files(patterns)
    bad = BadRecords(strict=not max_bad_share)

    def made() -> Iterator[T | RecordError]:
        for path in found.paths:
            for record in records_of(path):
                if isinstance(record, RecordError):
                    yield record
                    continue
                try:
                    yield make(record.value)
                except ValueError as error:
                    yield RecordError(path, record.line, str(error))

    records = list(bad.sift(made()))
    bad.check(max_bad_share)
    if not records:
        raise ValueError(bad.notice() or f"{', '.join(patterns)}: there is no record in it.")
    return Reading(records, bad, found.notice())
