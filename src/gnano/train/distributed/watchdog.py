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

from gnano.utils.terminal import echo_stderr

MAX_HOSTS_SHOWN = 4  # hosts that a message names
HANG_ADVICE = (
    "Look there for storage that hangs, a mount that is dead, a device that no longer answers"
)


class WatchdogTiming(NamedTuple):
    """Seconds that the watch over the ranks works with."""

    check_interval: float = 1.0  # between two checks
    # between two checks after which the process itself was not running
    pause_threshold: float = 5.0
    heartbeat_timeout: float = 40.0  # without a heartbeat after which a rank counts as dead
    exit_grace: float = 10.0  # in which a rank that lost its peers waits to learn which one failed
    # for a sum of one number over all ranks, NCCL's start included
    first_collective_timeout: float = 120.0


DEFAULT_TIMING = WatchdogTiming()


class Phase(NamedTuple):
    number: float  # phases before it, the same on all ranks; infinite where it waits for rank 0
    name: str
    start_time: float  # by time.monotonic()
    timeout: float  # seconds, may be infinite


class PhaseTracker:
    """The phase of this process, and how long the watch has seen it there."""

    def __init__(self, timeout: float = 0.0, timing: WatchdogTiming = DEFAULT_TIMING) -> None:
        self.timeout, self.timing = timeout or math.inf, timing
        self.last_check = self.awake_start = time.monotonic()
        self.phase = Phase(0, "starting", self.last_check, self.timeout)

    def set_phase(self, name: str, timeout: float | None = None) -> None:
        timeout = self.timeout if timeout is None else timeout
        self.phase = Phase(self.phase.number + 1, name, time.monotonic(), timeout)

    @contextmanager
    def exclusive_phase(self, is_waiting: bool) -> Iterator[None]:
        """One rank works while the others wait for it; then the phase has its full time again."""
        phase = self.phase
        if is_waiting:
            self.phase = phase._replace(number=math.inf)
        try:
            yield
        finally:
            self.phase = phase._replace(start_time=time.monotonic())

    def record_check(self) -> None:
        """Note that the process is running; the watch calls it at every check."""
        self.awake_start = self.awake_since()
        self.last_check = time.monotonic()

    def awake_since(self) -> float:
        """Return the time.monotonic() since which this process has run without a pause."""
        now = time.monotonic()
        return now if now - self.last_check > self.timing.pause_threshold else self.awake_start

    def time_in_phase(self, phase: Phase) -> float:
        """Return the seconds in this phase that count towards its limit."""
        return time.monotonic() - max(phase.start_time, self.awake_since())

    def describe_timeout(self, phase: Phase) -> str:
        """Return a sentence on the limit of a phase and how to change it."""
        if phase.timeout != self.timeout:
            return f"This phase may take {phase.timeout:,g} s."
        return (
            f"A phase may take {phase.timeout:,g} s: train.stability.stall_timeout is the setting "
            f"for work that rightly takes longer (0: no limit)."
        )


class Watchdog:
    """Ends a process that trains alone when it is in a phase for too long."""

    def __init__(self, phases: PhaseTracker) -> None:
        self.phases, self.timing = phases, phases.timing
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, name="watch", daemon=True)]
        self.threads[0].start()

    def close(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(2 * self.timing.check_interval)

    def _run(self) -> None:
        while not self.stopped.wait(self.timing.check_interval):
            self.phases.record_check()
            self._check()

    def _check(self) -> None:
        phase = self.phases.phase
        held = self.phases.time_in_phase(phase)
        if held > phase.timeout:
            exit_process(
                f"process {os.getpid()} on {socket.gethostname()} has been in "
                f'"{phase.name}" for {held:,.0f} s. {HANG_ADVICE}. {self.phases.describe_timeout(phase)}'
            )


class Heartbeat(NamedTuple):
    """A heartbeat: that a rank is alive, and its phase."""

    sequence: int
    pid: int
    host: str
    phase_index: float  # of its phase
    phase: str

    @classmethod
    def decode(cls, text: bytes) -> Self:
        return cls(*json.loads(text))

    def encode(self) -> str:
        return json.dumps(self)


def slowest_ranks(heartbeats: dict[int, Heartbeat]) -> list[int]:
    """Return the ranks that have started the fewest phases."""
    fewest = min(sign.phase_index for sign in heartbeats.values())
    return [rank for rank, sign in heartbeats.items() if sign.phase_index == fewest]


def describe_hang(heartbeats: dict[int, Heartbeat], seconds: float) -> str:
    """Describe which ranks hang, and which wait for them."""
    late = slowest_ranks(heartbeats)
    stuck = _group_by_phase(heartbeats, late)
    if len(heartbeats) == len(late) > 1 and len(stuck) == 1:
        return f'all {len(late)} ranks are held up in "{heartbeats[late[0]].phase}" for {seconds:,.0f} s'
    whom = "it" if len(late) == 1 else "them"
    return ", and ".join(
        [
            f"{_format_ranks(ranks)} on {_format_hosts(heartbeats, ranks)} "
            f'{"is" if len(ranks) == 1 else "are"} held up in "{phase}" for {seconds:,.0f} s'
            for phase, ranks in stuck.items()
        ]
        + [
            f'{_format_ranks(ranks)} {"waits" if len(ranks) == 1 else "wait"} for {whom} in "{phase}"'
            for phase, ranks in _group_by_phase(heartbeats, heartbeats.keys() - late).items()
        ]
    )


def _group_by_phase(heartbeats: dict[int, Heartbeat], ranks: Iterable[int]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for rank in sorted(ranks):
        found[heartbeats[rank].phase].append(rank)
    return found


def _format_hosts(heartbeats: dict[int, Heartbeat], ranks: list[int]) -> str:
    names = list(dict.fromkeys(heartbeats[rank].host for rank in ranks))
    more = f" and {len(names) - MAX_HOSTS_SHOWN} more" if len(names) > MAX_HOSTS_SHOWN else ""
    return ", ".join(names[:MAX_HOSTS_SHOWN]) + more


def _format_ranks(ranks: list[int]) -> str:
    """Return "rank 3", or "ranks 0, 2, 4-7"."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][-1] + 1:
            spans[-1].append(rank)
        else:
            spans.append([rank])
    parts = [f"{s[0]}-{s[-1]}" if len(s) > 2 else ", ".join(map(str, s)) for s in spans]
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(parts)}"


def report_to_stderr(reason: str, with_stacks: bool) -> None:
    """Write a sentence to stderr, and on request the stack of every thread."""
    echo_stderr(f"gnano: {reason}")
    if with_stacks:
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=2)  # sys.stderr need not have a descriptor


def exit_process(reason: str, with_stacks: bool = True) -> NoReturn:
    """End the process immediately, as its main thread may be in a call that never returns."""
    report_to_stderr(reason, with_stacks)
    os._exit(1)
