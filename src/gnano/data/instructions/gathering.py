"""All records of a recipe's sources, read and parted: what is learned, and what is held out.

sources ─▶ files ─▶ records ─┬─▶ by source, to learn from
                             └─▶ held out: a hash of the question decides
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnano.data.generators import generate
from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.instructions.conversations import (
    Conversation,
    Preference,
    conversation_of,
    preference_of,
)
from gnano.data.instructions.files import files_of
from gnano.data.instructions.reading import Reading, UnusedKeys, read_records
from gnano.data.split import no_heldout_note, position

T = TypeVar("T", Conversation, Preference)


@dataclass(frozen=True)
class Gathered(Generic[T]):
    train: dict[str, list[T]]  # by source
    heldout: dict[str, list[T]]  # by category; of those without one, by source
    complaints: list[str]  # about records that cannot be used, and files that were left out


def gather_conversations(config: InstructionConfig) -> Gathered[Conversation]:
    """Raises ValueError where a source has nothing, or too many bad records."""
    unused = UnusedKeys()

    def read(source: InstructionSource) -> Reading[Conversation]:
        if source.kind == "generator":
            return _generate(source, Conversation)
        return _read(config, source, unused.watched(conversation_of))

    gathered = _gather(config, read)
    gathered.complaints.extend(unused.notices())
    return gathered


def gather_preferences(config: InstructionConfig) -> Gathered[Preference]:
    """Raises ValueError where a source has nothing, or too many bad records."""
    unused = UnusedKeys()

    def read(source: InstructionSource) -> Reading[Preference]:
        if source.kind == "generator":
            return _generate(source, Preference)
        return _read(config, source, unused.watched(preference_of))

    gathered = _gather(config, read)
    gathered.complaints.extend(unused.notices())
    return gathered


def _generate(source: InstructionSource, kind: type[T]) -> Reading[T]:
    return Reading(list(islice(generate(source.generator, kind), source.max_records or None)))


def _read(
    config: InstructionConfig, source: InstructionSource, make: Callable[[Any], T]
) -> Reading[T]:
    files = files_of(source, Path(config.downloads))
    return read_records(files, make, config.max_bad_share)


def _gather(
    config: InstructionConfig, read: Callable[[InstructionSource], Reading[T]]
) -> Gathered[T]:
    if not config.sources:
        raise ValueError(
            "The recipe has no data.sources: add one, or name files of yours (--files)."
        )
    gathered: Gathered[T] = Gathered({}, {}, [])
    for name, source in config.sources.items():
        if source.kind == "files" and not source.files:
            raise ValueError(
                f"Source {name!r} names no file: give it files (data.sources.{name}.files)."
            )
        reading = read(source)
        gathered.complaints.extend(f"{name}: {notice}" for notice in reading.notices)
        gathered.train[name] = []
        for record in reading.records[: source.max_records or None]:
            if position(record.group) < config.heldout * 2**64:
                gathered.heldout.setdefault(record.category or name, []).append(record)
            else:
                gathered.train[name].append(record)
    if config.heldout and not gathered.heldout:
        groups = [record.group for records in gathered.train.values() for record in records]
        what = f"{len(groups):,} records"
        gathered.complaints.append(no_heldout_note(what, config.heldout, map(position, groups)))
    return gathered
