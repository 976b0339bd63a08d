"""Loads the records of a recipe's sources and splits them into training and held-out records.

    sources ─▶ files ─▶ records ─┬─▶ training, by source
                                 └─▶ held out, by a hash of the question

Bad records are skipped, counted and reported, and so are unused keys: "3 of 5,000 records cannot
be used: …", "Keys that are not used: tools (3 records), messages.weight (60 records)".
"""

from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnano.config.data_config import MAX_BAD_SHARE, InstructionConfig
from gnano.data.generators import iter_items
from gnano.data.manifest import format_empty_heldout, text_position
from gnano.data.readers import read_records as records_of
from gnano.data.sft.conversations import (
    Conversation,
    Preference,
    parse_conversation,
    parse_preference,
)
from gnano.data.source_files import find_files, resolve_source_files
from gnano.data.text_files import BadRecordCounter, RecordError

ParsedT = TypeVar("ParsedT")
RecordT = TypeVar("RecordT", Conversation, Preference)
MESSAGE_KEYS = {"role", "from", "content", "value"}
MAX_KEYS_SHOWN = 8


@dataclass(frozen=True)
class SplitRecords(Generic[RecordT]):
    """The records of all sources, for training and held out."""

    train: dict[str, list[RecordT]]  # by source
    heldout: dict[str, list[RecordT]]  # by category; records without one by source
    warnings: list[str]  # about bad records and skipped files


@dataclass(frozen=True)
class LoadedRecords(Generic[ParsedT]):
    """The parsed records of some files, and what was skipped."""

    records: list[ParsedT]
    bad_records: BadRecordCounter = field(default_factory=BadRecordCounter)
    skipped_files: str = ""  # which files, and why

    @property
    def warnings(self) -> list[str]:
        """Sentences about bad records and skipped files."""
        return list(filter(None, (self.skipped_files, self.bad_records.format_summary())))


def load_conversations(config: InstructionConfig) -> SplitRecords[Conversation]:
    """Load all conversations; raise ValueError if a source has none, or too many bad records."""
    return _load_and_split(config, Conversation, parse_conversation)


def load_preferences(config: InstructionConfig) -> SplitRecords[Preference]:
    """Load all preferences; raise ValueError if a source has none, or too many bad records."""
    return _load_and_split(config, Preference, parse_preference)


def _load_and_split(
    config: InstructionConfig, kind: type[RecordT], parse: Callable[[Any], RecordT]
) -> SplitRecords[RecordT]:
    if not config.sources:
        raise ValueError("The recipe has no data.sources. Add one, or use files (--files).")
    unused = UnusedKeyCounter()
    split: SplitRecords[RecordT] = SplitRecords({}, {}, [])
    for name, source in config.sources.items():
        if source.kind == "files" and not source.files:
            raise ValueError(f"Source {name!r} has no files. Add some (data.sources.{name}.files).")
        if source.kind == "generator":
            items = iter_items(source.generator, kind)
            loaded = LoadedRecords(list(islice(items, source.max_records or None)))
        else:
            files = resolve_source_files(source, Path(config.cache_dir))
            loaded = read_record_files(files, unused.wrap_parser(parse), config.max_bad_share)
        split.warnings.extend(f"{name}: {warning}" for warning in loaded.warnings)
        split.train[name] = []
        for record in loaded.records[: source.max_records or None]:
            if text_position(record.split_key) < config.heldout_fraction * 2**64:
                split.heldout.setdefault(record.category or name, []).append(record)
            else:
                split.train[name].append(record)
    if config.heldout_fraction and not split.heldout:
        keys = [record.split_key for records in split.train.values() for record in records]
        positions = map(text_position, keys)
        split.warnings.append(
            format_empty_heldout(f"{len(keys):,} records", config.heldout_fraction, positions)
        )
    split.warnings.extend(unused.warnings())
    return split


def read_conversation_files(
    patterns: Sequence[str], max_bad_share: float = MAX_BAD_SHARE
) -> LoadedRecords[Conversation]:
    """Read all conversations of these files; see `read_record_files`."""
    return read_record_files(patterns, parse_conversation, max_bad_share)


def read_record_files(
    patterns: Sequence[str], parse: Callable[[Any], ParsedT], max_bad_share: float = MAX_BAD_SHARE
) -> LoadedRecords[ParsedT]:
    """Parse all records of these files, in order.

    Records for which `parse` raises ValueError are bad. Raises ValueError if their share is larger
    than `max_bad_share`, or no record remains.
    """
    found = find_files(patterns)
    bad = BadRecordCounter(strict=not max_bad_share)

    def parsed() -> Iterator[ParsedT | RecordError]:
        for path in found.paths:
            for record in records_of(path):
                try:
                    yield record if isinstance(record, RecordError) else parse(record.value)
                except ValueError as error:
                    yield RecordError(path, record.line, str(error))

    records = list(bad.filter(parsed()))
    bad.check(max_bad_share)
    if not records:
        raise ValueError(bad.format_summary() or f"{', '.join(patterns)}: it has no records.")
    return LoadedRecords(records, bad, found.format_skipped())


class UnusedKeyCounter:
    """Counts the keys of records that have a value but are not read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def wrap_parser(self, parse: Callable[[Any], ParsedT]) -> Callable[[Any], ParsedT]:
        """Return a parser that also counts the keys that `parse` does not read."""

        def counting_parse(record: Any) -> ParsedT:
            if not isinstance(record, dict):
                return parse(record)
            tracker = _KeyTracker(record)
            parsed = parse(tracker)
            self.counts.update(_find_unused_keys(record, tracker.keys_read))
            return parsed

        return counting_parse

    def warnings(self) -> list[str]:
        """Return one line that lists the unused keys; an empty list without any."""
        if not self.counts:
            return []
        most_common = self.counts.most_common(MAX_KEYS_SHOWN)
        keys = [f"{key} ({count:,} records)" for key, count in most_common]
        if len(self.counts) > MAX_KEYS_SHOWN:
            keys.append(f"{len(self.counts) - MAX_KEYS_SHOWN:,} more")
        return [f"Keys that are not used: {', '.join(keys)}"]


class _KeyTracker(ChainMap[str, Any]):
    """A record that remembers which of its keys were read."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)
        self.keys_read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_read.add(key)
        return super().__getitem__(key)


def _find_unused_keys(record: Mapping[str, Any], keys_read: set[str]) -> set[str]:
    """Return the keys of a record and of its messages that have a value and were not read."""
    unused = set()
    for key, value in record.items():
        if key not in keys_read:
            unused.update([key] if value else [])
        elif isinstance(value, list):
            entries = [entry for entry in value if isinstance(entry, Mapping)]
            inner = {name for entry in entries for name, held in entry.items() if held}
            unused.update(f"{key}.{name}" for name in inner - MESSAGE_KEYS)
    return unused
