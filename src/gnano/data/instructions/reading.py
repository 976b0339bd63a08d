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

from gnano.data.bad_records import MAX_BAD_SHARE, BadRecordCounter, RecordError
from gnano.data.file_search import find_files
from gnano.data.instructions.conversations import Conversation, parse_conversation
from gnano.data.records import read_records as records_of

ParsedT = TypeVar("ParsedT")
MESSAGE_KEYS = {"role", "from", "content", "value"}
MAX_KEYS_SHOWN = 8


@dataclass(frozen=True)
class LoadedRecords(Generic[ParsedT]):
    records: list[ParsedT]
    bad_records: BadRecordCounter = field(default_factory=BadRecordCounter)
    skipped_files: str = ""  # of the files, which and why

    @property
    def warnings(self) -> list[str]:
        """What to report of bad records, and of files that were left out."""
        return [
            notice for notice in (self.skipped_files, self.bad_records.format_summary()) if notice
        ]


def read_conversation_files(
    patterns: Sequence[str], max_bad_share: float = MAX_BAD_SHARE
) -> LoadedRecords[Conversation]:
    """Read all conversations of these files; see `read_records`."""
    return read_record_files(patterns, parse_conversation, max_bad_share)


def read_record_files(
    patterns: Sequence[str], parse: Callable[[Any], ParsedT], max_bad_share: float = MAX_BAD_SHARE
) -> LoadedRecords[ParsedT]:
    """Return what `make` makes of all records of these files, in order.

    Records of which `make` raises ValueError are bad ones. Raises ValueError where their share is
    larger than `max_bad_share`, or nothing is left.
    """
    found = find_files(patterns)
    bad = BadRecordCounter(strict=not max_bad_share)

    def made() -> Iterator[ParsedT | RecordError]:
        for path in found.paths:
            for record in records_of(path):
                try:
                    yield record if isinstance(record, RecordError) else parse(record.value)
                except ValueError as error:
                    yield RecordError(path, record.line, str(error))

    records = list(bad.filter(made()))
    bad.check(max_bad_share)
    if not records:
        raise ValueError(
            bad.format_summary() or f"{', '.join(patterns)}: there is no record in it."
        )
    return LoadedRecords(records, bad, found.format_skipped())


class UnusedKeyCounter:
    """Counts the keys of records that hold something and are not read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def wrap_parser(self, parse: Callable[[Any], ParsedT]) -> Callable[[Any], ParsedT]:
        """Return the same as `make`, which counts the keys that it does not read."""

        def watched(record: Any) -> ParsedT:
            if not isinstance(record, dict):
                return parse(record)
            seen = _KeyTracker(record)
            made = parse(seen)
            self.counts.update(_find_unused_keys(record, seen.keys_read))
            return made

        return watched

    def warnings(self) -> list[str]:
        """Return one line that names them; none where there are none."""
        if not self.counts:
            return []
        keys = [
            f"{key} ({count:,} records)" for key, count in self.counts.most_common(MAX_KEYS_SHOWN)
        ]
        more = (
            [f"{len(self.counts) - MAX_KEYS_SHOWN:,} more"]
            if len(self.counts) > MAX_KEYS_SHOWN
            else []
        )
        return [f"Keys that are not used: {', '.join(keys + more)}"]


class _KeyTracker(ChainMap[str, Any]):
    """A record that notes which of its keys are read."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)
        self.keys_read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_read.add(key)
        return super().__getitem__(key)


def _find_unused_keys(record: Mapping[str, Any], keys_read: set[str]) -> set[str]:
    """Return the keys of a record and of its messages that hold something and were not read."""
    unused = set()
    for key, value in record.items():
        if key not in keys_read:
            unused.update([key] if value else [])
        elif isinstance(value, list):
            entries = [entry for entry in value if isinstance(entry, Mapping)]
            inner = {name for entry in entries for name, held in entry.items() if held}
            unused.update(f"{key}.{name}" for name in inner - MESSAGE_KEYS)
    return unused
