"""Keys of records that nothing here obeys: counted while records are read, and named once.

unused = UnusedKeys()
conversation = unused.watched(conversation_of)(record)
unused.notices()  # ["Keys that are not used: tools (3 records), messages.weight (60 records)"]
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
MESSAGE = {"role", "from", "content", "value"}
SHOWN = 8


class UnusedKeys:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def watched(self, make: Callable[[Any], T]) -> Callable[[Any], T]:
        """The same as `make`, whose records' keys that it does not read are counted."""

        def watched(record: Any) -> T:
            if not isinstance(record, Mapping):
                return make(record)
            seen = _Seen(record)
            made = make(seen)
            self.counts.update(_unused(seen))
            return made

        return watched

    def notices(self) -> list[str]:
        """What there is to say of them: one line, or none."""
        if not self.counts:
            return []
        keys = [f"{key} ({count:,} records)" for key, count in self.counts.most_common(SHOWN)]
        more = [f"{len(self.counts) - SHOWN:,} more"] if len(self.counts) > SHOWN else []
        return [f"Keys that are not used: {', '.join(keys + more)}"]


class _Seen(Mapping[str, Any]):
    """A record that notes which of its keys are read."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self.record[key]
        self.read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self.record

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


def _unused(seen: _Seen) -> set[str]:
    """The keys of the record and of its messages that hold something and were not read."""
    found = set()
    for key, value in seen.record.items():
        if key not in seen.read:
            found.update([key] if value else [])
        elif isinstance(value, list):
            entries = [entry for entry in value if isinstance(entry, Mapping)]
            inner = {name for entry in entries for name, held in entry.items() if held}
            found.update(f"{key}.{name}" for name in inner - MESSAGE)
    return found
