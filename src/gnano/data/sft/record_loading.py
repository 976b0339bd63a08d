"""Reading of files of records: bad records are left out, counted and named, and so are unused keys.

unused = UnusedKeys()
reading = read_records(["talk/*.jsonl"], unused.watched(conversation_of))
reading.notices   # ["3 of 5,000 records cannot be used: …"]
unused.notices()  # ["Keys that are not used: tools (3 records), messages.weight (60 records)"]

All records of a recipe's sources, read and parted: what is learned, and what is held out.

sources ─▶ files ─▶ records ─┬─▶ by source, to learn from
                             └─▶ held out: a hash of the question decides
"""

from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnano.config.data_config import MAX_BAD_SHARE, InstructionConfig, InstructionSource
from gnano.data.generators import iter_items
from gnano.data.manifest import format_empty_heldout, text_position
from gnano.data.readers import read_records as records_of
from gnano.data.record_errors import BadRecordCounter, RecordError
from gnano.data.sft.conversations import (
    Conversation,
    Preference,
    parse_conversation,
    parse_preference,
)
from gnano.data.source_files import find_files, resolve_source_files

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


RecordT = TypeVar("RecordT", Conversation, Preference)


@dataclass(frozen=True)
class SplitRecords(Generic[RecordT]):
    train: dict[str, list[RecordT]]  # by source
    heldout: dict[str, list[RecordT]]  # by category; of those without one, by source
    warnings: list[str]  # about records that cannot be used, and files that were left out


def load_conversations(config: InstructionConfig) -> SplitRecords[Conversation]:
    """Raises ValueError where a source has nothing, or too many bad records."""
    unused = UnusedKeyCounter()

    def read(source: InstructionSource) -> LoadedRecords[Conversation]:
        if source.kind == "generator":
            return _generate(source, Conversation)
        return _read_source(config, source, unused.wrap_parser(parse_conversation))

    gathered = _load_and_split(config, read)
    gathered.warnings.extend(unused.warnings())
    return gathered


def load_preferences(config: InstructionConfig) -> SplitRecords[Preference]:
    """Raises ValueError where a source has nothing, or too many bad records."""
    unused = UnusedKeyCounter()

    def read(source: InstructionSource) -> LoadedRecords[Preference]:
        if source.kind == "generator":
            return _generate(source, Preference)
        return _read_source(config, source, unused.wrap_parser(parse_preference))

    gathered = _load_and_split(config, read)
    gathered.warnings.extend(unused.warnings())
    return gathered


def _generate(source: InstructionSource, kind: type[RecordT]) -> LoadedRecords[RecordT]:
    return LoadedRecords(
        list(islice(iter_items(source.generator, kind), source.max_records or None))
    )


def _read_source(
    config: InstructionConfig, source: InstructionSource, parse: Callable[[Any], RecordT]
) -> LoadedRecords[RecordT]:
    files = resolve_source_files(source, Path(config.cache_dir))
    return read_record_files(files, parse, config.max_bad_share)


def _load_and_split(
    config: InstructionConfig, read_source: Callable[[InstructionSource], LoadedRecords[RecordT]]
) -> SplitRecords[RecordT]:
    if not config.sources:
        raise ValueError(
            "The recipe has no data.sources: add one, or name files of yours (--files)."
        )
    gathered: SplitRecords[RecordT] = SplitRecords({}, {}, [])
    for name, source in config.sources.items():
        if source.kind == "files" and not source.files:
            raise ValueError(
                f"Source {name!r} names no file: give it files (data.sources.{name}.files)."
            )
        reading = read_source(source)
        gathered.warnings.extend(f"{name}: {notice}" for notice in reading.warnings)
        gathered.train[name] = []
        for record in reading.records[: source.max_records or None]:
            if text_position(record.split_key) < config.heldout_fraction * 2**64:
                gathered.heldout.setdefault(record.category or name, []).append(record)
            else:
                gathered.train[name].append(record)
    if config.heldout_fraction and not gathered.heldout:
        groups = [record.split_key for records in gathered.train.values() for record in records]
        what = f"{len(groups):,} records"
        gathered.warnings.append(
            format_empty_heldout(what, config.heldout_fraction, map(text_position, groups))
        )
    return gathered
