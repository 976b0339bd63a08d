"""Is this process stuck? It says what it is doing, and no phase may take longer than its limit.

The thread that trains begins a phase with one assignment, so it may do so every step; another
thread looks once a second whether the phase has become too old:

    reading the data of step 12 ──▶ step 12 ──▶ saving ──▶ …       phases, numbered

Where the whole process did not run for a while (SIGSTOP, a laptop's sleep) no phase is to blame,
and the limit begins anew. A hang inside a call that keeps Python's lock cannot be seen from
here: of several ranks the others find it by its silence (`lifeline.py`).
"""

import faulthandler
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from gnano.utils.terminal import note

EVERY = 1.0  # seconds between two looks
LATE = 5.0  # seconds between two looks after which the process itself stood still
LOOK = "Look there for storage that hangs, a mount that is dead, a device that no longer answers"


class Phase(NamedTuple):
    number: float  # phases before it, the same on all ranks; infinite where it waits for rank 0
    name: str
    since: float  # by time.monotonic()
    limit: float  # seconds, may be infinite


class Progress:
    """The phase this process is in, and how long its watch has seen it there."""

    def __init__(self, stall: float = 0.0) -> None:
        self.stall = stall or math.inf
        self.looked = self.anew = time.monotonic()
        self.phase = Phase(0, "starting", self.looked, self.stall)

    def doing(self, name: str, limit: float | None = None) -> None:
        limit = self.stall if limit is None else limit
        self.phase = Phase(self.phase.number + 1, name, time.monotonic(), limit)

    @contextmanager
    def apart(self, waits: bool) -> Iterator[None]:
        """One rank works alone, the others wait for it; then the phase has its full time again."""
        phase = self.phase
        if waits:
            self.phase = phase._replace(number=math.inf)
        try:
            yield
        finally:
            self.phase = phase._replace(since=time.monotonic())

    def look(self) -> None:
        """Called by the watch, every time."""
        self.anew = self.awake_since()
        self.looked = time.monotonic()

    def awake_since(self) -> float:
        """When this process last stood still, by time.monotonic(); nothing before it counts."""
        now = time.monotonic()
        return now if now - self.looked > LATE else self.anew

    def held(self, phase: Phase) -> float:
        """Seconds in this phase, as far as the limit counts them."""
        return time.monotonic() - max(phase.since, self.awake_since())

    def rule(self, phase: Phase) -> str:
        """Which limit a phase has passed, and how to change it."""
        if phase.limit != self.stall:
            return f"This phase may take {phase.limit:,g} s."
        return (
            f"A phase may take {phase.limit:,g} s: train.guard.stall is the setting "
            f"for work that rightly takes longer (0: no limit)."
        )


class LoneWatch:
    """The watch over a process that trains without others."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.over.set()
        self.thread.join(2 * EVERY)

    def _watch(self) -> None:
        while not self.over.wait(EVERY):
            self.progress.look()
            phase = self.progress.phase
            held = self.progress.held(phase)
            if held > phase.limit:
                leave(
                    f"process {os.getpid()} on {socket.gethostname()} has been in "
                    f'"{phase.name}" for {held:,.0f} s. {LOOK}. {self.progress.rule(phase)}'
                )


def tell(reason: str, stacks: bool) -> None:
    """A sentence on stderr, and where each thread of this process is."""
    note(f"gnano: {reason}")
    if stacks:
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=2)  # sys.stderr need not have a descriptor


def leave(reason: str, stacks: bool = True) -> NoReturn:
    """End the process at once: its main thread may be where nothing returns from."""
    tell(reason, stacks)
    os._exit(1)
