"""The progress of a preparation: counts by source, speed, and the time left."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from gnano.live import format_clock


class Counts(NamedTuple):
    """What a task under way, or several finished ones, amount to."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


ZERO_COUNTS = Counts()


@dataclass
class SourceStatus:
    expected_tasks: int = 0  # expected
    expected_tokens: int = 0  # expected
    finished_tasks: int = 0  # tasks
    finished: Counts = ZERO_COUNTS
    in_progress: dict[int, Counts] = field(default_factory=dict)
    downloaded_bytes: int = 0  # bytes downloaded by this process

    @property
    def counts(self) -> Counts:
        parts = [self.finished, *self.in_progress.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))


@dataclass
class PrepareStatus:
    """What `prepare` shows while it works."""

    sources: dict[str, SourceStatus] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    resumed_counts: Counts = ZERO_COUNTS  # done by earlier processes

    @property
    def counts(self) -> Counts:
        parts = [source.counts for source in self.sources.values()]
        return Counts(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        new = self.counts.tokens - self.resumed_counts.tokens
        if new <= 0:
            return None
        # each source by itself: one that gave more than was guessed does not shorten another
        left = sum(max(s.expected_tokens - s.counts.tokens, 0) for s in self.sources.values())
        return left * (time.monotonic() - self.started_at) / new

    def __str__(self) -> str:
        """How far it is altogether, and a line for each source."""
        seconds = max(time.monotonic() - self.started_at, 1e-3)
        speed = (self.counts.bytes - self.resumed_counts.bytes) / 1e6 / seconds
        expected = sum(max(s.expected_tokens, s.counts.tokens) for s in self.sources.values())
        share = self.counts.tokens / max(expected, 1)
        left = "" if self.seconds_left is None else f", {format_clock(self.seconds_left)} left"
        lines = [f"{share:.0%} of about {_format_count(expected)} tokens, {speed:.1f} MB/s{left}"]
        wide = max(map(len, self.sources), default=0)
        for name, source in self.sources.items():
            counts = source.counts
            lines.append(
                f"  {name:<{wide}}  {source.finished_tasks}/{source.expected_tasks} tasks, {counts.documents:,} "
                f"documents, {_format_count(counts.tokens)} tokens"
            )
            if source.downloaded_bytes:
                lines[-1] += f", {_format_count(source.downloaded_bytes)}B downloaded"
        return "\n".join(lines)


def _format_count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"
