"""Reading of files of records: bad records are left out, counted and named, and so are unused keys.

unused = UnusedKeys()
reading = read_records(["talk/*.jsonl"], unused.watched(conversation_of))
reading.notices   # ["3 of 5,000 records cannot be used: …"]
unused.notices()  # ["Keys that are not used: tools (3 records), messages.weight (60 records)"]
"""

from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from gnano.data.bad_records import MAX_BAD_SHARE, BadRecords, RecordError
from gnano.data.file_search import find_files
from gnano.data.instructions.conversations import Conversation, conversation_of
from gnano.data.records import read_records as records_of

T = TypeVar("T")
MESSAGE = {"role", "from", "content", "value"}
SHOWN = 8


@dataclass(frozen=True)
class Reading(Generic[T]):
    records: list[T]
    bad: BadRecords = field(default_factory=BadRecords)
    left_out: str = ""  # of the files, which and why

    @property
    def notices(self) -> list[str]:
        """What to report of bad records, and of files that were left out."""
        return [notice for notice in (self.left_out, self.bad.notice()) if notice]


def read_conversations(
    patterns: Sequence[str], max_bad_share: float = MAX_BAD_SHARE
) -> Reading[Conversation]:
    """Read all conversations of these files; see `read_records`."""
    return read_records(patterns, conversation_of, max_bad_share)


def read_records(
    patterns: Sequence[str], make: Callable[[Any], T], max_bad_share: float = MAX_BAD_SHARE
) -> Reading[T]:
    """Return what `make` makes of all records of these files, in order.

    Records of which `make` raises ValueError are bad ones. Raises ValueError where their share is
    larger than `max_bad_share`, or nothing is left.
    """
    found = find_files(patterns)
    bad = BadRecords(strict=not max_bad_share)

    def made() -> Iterator[T | RecordError]:
        for path in found.paths:
            for record in records_of(path):
                try:
                    yield record if isinstance(record, RecordError) else make(record.value)
                except ValueError as error:
                    yield RecordError(path, record.line, str(error))

    records = list(bad.sift(made()))
    bad.check(max_bad_share)
    if not records:
        raise ValueError(bad.notice() or f"{', '.join(patterns)}: there is no record in it.")
    return Reading(records, bad, found.notice())


class UnusedKeys:
    """Counts the keys of records that hold something and are not read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def watched(self, make: Callable[[Any], T]) -> Callable[[Any], T]:
        """Return the same as `make`, which counts the keys that it does not read."""

        def watched(record: Any) -> T:
            if not isinstance(record, dict):
                return make(record)
            seen = _ReadKeys(record)
            made = make(seen)
            self.counts.update(_unused_keys(record, seen.read))
            return made

        return watched

    def notices(self) -> list[str]:
        """Return one line that names them; none where there are none."""
        if not self.counts:
            return []
        keys = [f"{key} ({count:,} records)" for key, count in self.counts.most_common(SHOWN)]
        more = [f"{len(self.counts) - SHOWN:,} more"] if len(self.counts) > SHOWN else []
        return [f"Keys that are not used: {', '.join(keys + more)}"]


class _ReadKeys(ChainMap[str, Any]):
    """A record that notes which of its keys are read."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def _unused_keys(record: Mapping[str, Any], read: set[str]) -> set[str]:
    """Return the keys of a record and of its messages that hold something and were not read."""
    unused = set()
    for key, value in record.items():
        if key not in read:
            unused.update([key] if value else [])
        elif isinstance(value, list):
            entries = [entry for entry in value if isinstance(entry, Mapping)]
            inner = {name for entry in entries for name, held in entry.items() if held}
            unused.update(f"{key}.{name}" for name in inner - MESSAGE)
    return unused
