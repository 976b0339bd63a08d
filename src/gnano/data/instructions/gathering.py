"""All records of a recipe's sources, read and parted: what is learned, and what is held out.

sources ─▶ files ─▶ records ─┬─▶ by source, to learn from
                             └─▶ held out: a hash of the question decides
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnano.data.generators import iter_items
from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.instructions.conversations import (
    Conversation,
    Preference,
    parse_conversation,
    parse_preference,
)
from gnano.data.instructions.files import resolve_source_files
from gnano.data.instructions.reading import LoadedRecords, UnusedKeyCounter, read_record_files
from gnano.data.split import format_empty_heldout, text_position

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
