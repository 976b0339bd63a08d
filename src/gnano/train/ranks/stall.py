"""Detects a rank that hangs: it states its phase, and no phase may take longer than its limit.

The training thread starts a phase with one assignment, so it may do so every step; another thread
checks once a second whether the phase is too old:

    reading the data of step 12 ──▶ step 12 ──▶ saving ──▶ …       phases, numbered

All ranks go through the same phases with the same numbers. When one hangs, the others wait for it
in their next exchange, so the one with the lowest number is at fault:

    rank 0   step 11 ▶ reading step 12 ▶ step 12 …         waits in an exchange
    rank 1   step 11 ▶ reading step 12 …                   is behind

Where the whole process did not run for a while (SIGSTOP, a laptop's sleep) no phase is at fault,
and its limit starts again. A hang in a call that holds Python's lock cannot be seen from inside the
process: the other ranks find it by its missing heartbeat (`lifeline.py`).
"""

import faulthandler
import json
import math
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn, Self

from gnano.utils.terminal import note

SHOWN = 4  # hosts that a message names
LOOK = "Look there for storage that hangs, a mount that is dead, a device that no longer answers"


class Timing(NamedTuple):
    """Seconds that the watch over the ranks works with."""

    every: float = 1.0  # between two checks
    late: float = 5.0  # between two checks after which the process itself was not running
    silent: float = 40.0  # without a heartbeat after which a rank counts as dead
    grace: float = 10.0  # in which a rank that lost its peers waits to learn which one failed
    first_exchange: float = 120.0  # for a sum of one number over all ranks, NCCL's start included


TIMING = Timing()


class Phase(NamedTuple):
    number: float  # phases before it, the same on all ranks; infinite where it waits for rank 0
    name: str
    since: float  # by time.monotonic()
    limit: float  # seconds, may be infinite


class Progress:
    """The phase of this process, and how long the watch has seen it there."""

    def __init__(self, stall: float = 0.0, timing: Timing = TIMING) -> None:
        self.stall, self.timing = stall or math.inf, timing
        self.looked = self.anew = time.monotonic()
        self.phase = Phase(0, "starting", self.looked, self.stall)

    def doing(self, name: str, limit: float | None = None) -> None:
        limit = self.stall if limit is None else limit
        self.phase = Phase(self.phase.number + 1, name, time.monotonic(), limit)

    @contextmanager
    def apart(self, waits: bool) -> Iterator[None]:
        """One rank works while the others wait for it; then the phase has its full time again."""
        phase = self.phase
        if waits:
            self.phase = phase._replace(number=math.inf)
        try:
            yield
        finally:
            self.phase = phase._replace(since=time.monotonic())

    def look(self) -> None:
        """Note that the process is running; the watch calls it at every check."""
        self.anew = self.awake_since()
        self.looked = time.monotonic()

    def awake_since(self) -> float:
        """Return the time.monotonic() since which this process has run without a pause."""
        now = time.monotonic()
        return now if now - self.looked > self.timing.late else self.anew

    def held(self, phase: Phase) -> float:
        """Return the seconds in this phase that count towards its limit."""
        return time.monotonic() - max(phase.since, self.awake_since())

    def rule(self, phase: Phase) -> str:
        """Return a sentence on the limit of a phase and how to change it."""
        if phase.limit != self.stall:
            return f"This phase may take {phase.limit:,g} s."
        return (
            f"A phase may take {phase.limit:,g} s: train.guard.stall is the setting "
            f"for work that rightly takes longer (0: no limit)."
        )


class LoneWatch:
    """Ends a process that trains alone when it is in a phase for too long."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.timing = progress, progress.timing
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._watch, name="watch", daemon=True)]
        self.threads[0].start()

    def close(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(2 * self.timing.every)

    def _watch(self) -> None:
        while not self.over.wait(self.timing.every):
            self.progress.look()
            self._check()

    def _check(self) -> None:
        phase = self.progress.phase
        held = self.progress.held(phase)
        if held > phase.limit:
            leave(
                f"process {os.getpid()} on {socket.gethostname()} has been in "
                f'"{phase.name}" for {held:,.0f} s. {LOOK}. {self.progress.rule(phase)}'
            )


class Sign(NamedTuple):
    """A heartbeat: that a rank is alive, and its phase."""

    beat: int
    pid: int
    host: str
    number: float  # of its phase
    phase: str

    @classmethod
    def read(cls, text: bytes) -> Self:
        return cls(*json.loads(text))

    def write(self) -> str:
        return json.dumps(self)


def behind(signs: dict[int, Sign]) -> list[int]:
    """Return the ranks that have started the fewest phases."""
    fewest = min(sign.number for sign in signs.values())
    return [rank for rank, sign in signs.items() if sign.number == fewest]


def held_up(signs: dict[int, Sign], seconds: float) -> str:
    """Describe which ranks hang, and which wait for them."""
    late = behind(signs)
    stuck = _by_phase(signs, late)
    if len(signs) == len(late) > 1 and len(stuck) == 1:
        return f'all {len(late)} ranks are held up in "{signs[late[0]].phase}" for {seconds:,.0f} s'
    whom = "it" if len(late) == 1 else "them"
    return ", and ".join(
        [
            f"{_name_ranks(ranks)} on {_name_hosts(signs, ranks)} "
            f'{"is" if len(ranks) == 1 else "are"} held up in "{phase}" for {seconds:,.0f} s'
            for phase, ranks in stuck.items()
        ]
        + [
            f'{_name_ranks(ranks)} {"waits" if len(ranks) == 1 else "wait"} for {whom} in "{phase}"'
            for phase, ranks in _by_phase(signs, signs.keys() - late).items()
        ]
    )


def _by_phase(signs: dict[int, Sign], ranks: Iterable[int]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for rank in sorted(ranks):
        found[signs[rank].phase].append(rank)
    return found


def _name_hosts(signs: dict[int, Sign], ranks: list[int]) -> str:
    names = list(dict.fromkeys(signs[rank].host for rank in ranks))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _name_ranks(ranks: list[int]) -> str:
    """Return "rank 3", or "ranks 0, 2, 4-7"."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][-1] + 1:
            spans[-1].append(rank)
        else:
            spans.append([rank])
    parts = [f"{s[0]}-{s[-1]}" if len(s) > 2 else ", ".join(map(str, s)) for s in spans]
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(parts)}"


def tell(reason: str, stacks: bool) -> None:
    """Write a sentence to stderr, and on request the stack of every thread."""
    note(f"gnano: {reason}")
    if stacks:
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=2)  # sys.stderr need not have a descriptor


def leave(reason: str, stacks: bool = True) -> NoReturn:
    """End the process immediately, as its main thread may be in a call that never returns."""
    tell(reason, stacks)
    os._exit(1)
