"""The progress of a preparation: counts by source, speed, and the time left."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from gnano.live import clock


class Counts(NamedTuple):
    """What a task under way, or several finished ones, amount to."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


NOTHING = Counts()


@dataclass
class SourceStatus:
    tasks: int = 0  # expected
    tokens: int = 0  # expected
    done: int = 0  # tasks
    finished: Counts = NOTHING
    under_way: dict[int, Counts] = field(default_factory=dict)
    fetched: int = 0  # bytes downloaded by this process

    @property
    def counts(self) -> Counts:
        parts = [self.finished, *self.under_way.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))


@dataclass
class Status:
    """What `prepare` shows while it works."""

    sources: dict[str, SourceStatus] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    earlier: Counts = NOTHING  # done by earlier processes

    @property
    def counts(self) -> Counts:
        parts = [source.counts for source in self.sources.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        new = self.counts.tokens - self.earlier.tokens
        if new <= 0:
            return None
        # each source by itself: one that gave more than was guessed does not shorten another
        left = sum(max(s.tokens - s.counts.tokens, 0) for s in self.sources.values())
        return left * (time.monotonic() - self.began) / new

    def __str__(self) -> str:
        """How far it is altogether, and a line for each source."""
        seconds = max(time.monotonic() - self.began, 1e-3)
        speed = (self.counts.bytes - self.earlier.bytes) / 1e6 / seconds
        expected = sum(max(s.tokens, s.counts.tokens) for s in self.sources.values())
        share = self.counts.tokens / max(expected, 1)
        left = "" if self.seconds_left is None else f", {clock(self.seconds_left)} left"
        lines = [f"{share:.0%} of about {_short(expected)} tokens, {speed:.1f} MB/s{left}"]
        wide = max(map(len, self.sources), default=0)
        for name, source in self.sources.items():
            counts = source.counts
            lines.append(
                f"  {name:<{wide}}  {source.done}/{source.tasks} tasks, {counts.documents:,} "
                f"documents, {_short(counts.tokens)} tokens"
            )
            if source.fetched:
                lines[-1] += f", {_short(source.fetched)}B downloaded"
        return "\n".join(lines)


def _short(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"
