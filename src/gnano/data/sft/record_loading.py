"""Loads the records of a recipe's sources and splits them into training and held-out records.

    sources ─▶ files ─▶ records ─┬─▶ training, by source
                                 └─▶ held out, by a hash of the question

Bad records are skipped, counted and reported, and so are unused keys: "3 of 5,000 records cannot
be used: …", "Keys that are not used: tools (3 records), messages.weight (60 records)".
"""

from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

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


class SplitRecords(NamedTuple, Generic[RecordT]):
    """The records of all sources, for training and held out."""

    train: dict[str, list[RecordT]]  # by source
    heldout: dict[str, list[RecordT]]  # by category; records without one by source
    warnings: list[str]  # about bad records and skipped files


class LoadedRecords(NamedTuple, Generic[ParsedT]):
    """The parsed records of some files."""

    records: list[ParsedT]
    bad_records: BadRecordCounter
    warnings: list[str]  # about bad records and skipped files


def load_conversations(config: InstructionConfig) -> SplitRecords[Conversation]:
    """Load all conversations; raise ValueError if a source has none, or too many bad records."""
    return _load_and_split(config, Conversation, parse_conversation)


def load_preferences(config: InstructionConfig) -> SplitRecords[Preference]:
    """Load all preferences; raise ValueError if a source has none, or too many bad records."""
    return _load_and_split(config, Preference, parse_preference)


def _load_and_split(
    config: InstructionConfig, kind: type[RecordT], parse: Callable[[Any], RecordT]
) -> SplitRecords[RecordT]:
    unused: Counter[str] = Counter()  # keys that have a value but are not read

    def parse_and_count(record: Any) -> RecordT:
        if not isinstance(record, dict):
            return parse(record)
        tracker = _KeyTracker(record)
        parsed = parse(tracker)
        unused.update(_find_unused_keys(record, tracker.keys_read))
        return parsed

    if not config.sources:
        raise ValueError("The recipe has no data.sources. Add one, or use files (--files).")
    split: SplitRecords[RecordT] = SplitRecords({}, {}, [])
    for name, source in config.sources.items():
        limit = source.max_records or None
        if source.kind == "files" and not source.files:
            raise ValueError(f"Source {name!r} has no files. Add some (data.sources.{name}.files).")
        if source.kind == "generator":
            records = list(islice(iter_items(source.generator, kind), limit))
        else:
            files = resolve_source_files(source, Path(config.cache_dir))
            records, _, warnings = read_record_files(files, parse_and_count, config.max_bad_share)
            split.warnings.extend(f"{name}: {warning}" for warning in warnings)
        split.train[name] = []
        for record in records[:limit]:
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
    if unused:
        shown = [f"{key} ({count:,} records)" for key, count in unused.most_common(MAX_KEYS_SHOWN)]
        if len(unused) > MAX_KEYS_SHOWN:
            shown.append(f"{len(unused) - MAX_KEYS_SHOWN:,} more")
        split.warnings.append(f"Keys that are not used: {', '.join(shown)}")
    return split


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
                if isinstance(record, RecordError):
                    yield record
                    continue
                try:
                    yield parse(record.value)
                except ValueError as error:
                    yield RecordError(path, record.line, str(error))

    records = list(bad.filter(parsed()))
    bad.check(max_bad_share)
    if not records:
        raise ValueError(bad.format_summary() or f"{', '.join(patterns)}: it has no records.")
    warnings = [found.format_skipped(), bad.format_summary()]
    return LoadedRecords(records, bad, list(filter(None, warnings)))


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
