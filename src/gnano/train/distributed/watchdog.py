"""Detects a rank that hangs: no phase of the run may take longer than its time limit.

The training thread starts a phase with one assignment, cheap enough for every step; another thread
checks once a second whether the phase has lasted too long:

    reading the data of step 12 ──▶ step 12 ──▶ saving ──▶ …       phases, numbered

All ranks go through the same phases with the same numbers. If one hangs, the others wait for it in
their next collective, so the rank with the lowest number is at fault:

    rank 0   step 11 ▶ reading step 12 ▶ step 12 …         waits in a collective
    rank 1   step 11 ▶ reading step 12 …                   is behind

After a pause of the process itself (SIGSTOP, a laptop's sleep) the time limit starts again. A hang
in a call that holds Python's lock cannot be detected inside the process: the other ranks detect it
by the missing heartbeat (`heartbeat.py`).
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
    "Check that machine for hanging storage, a dead mount or a device that no longer responds."
)


class WatchdogTiming(NamedTuple):
    """Intervals and timeouts of the watchdog, in seconds."""

    check_interval: float = 1.0  # between two checks
    pause_threshold: float = 5.0  # between two checks: above it the process was paused
    heartbeat_timeout: float = 40.0  # without a heartbeat, after which a rank counts as dead
    exit_grace: float = 10.0  # in which a rank that lost its peers waits for the failure's reason
    # for the sum of one number over all ranks, including the start of NCCL
    first_collective_timeout: float = 120.0


DEFAULT_TIMING = WatchdogTiming()


class Phase(NamedTuple):
    """A part of the run, with its time limit."""

    number: float  # phases before it, the same on all ranks; infinite if it waits for rank 0
    name: str
    start_time: float  # by time.monotonic()
    timeout: float  # seconds, may be infinite


class PhaseTracker:
    """The phase of this process, and how long it has lasted."""

    def __init__(self, timeout: float = 0.0, timing: WatchdogTiming = DEFAULT_TIMING) -> None:
        self.timeout, self.timing = timeout or math.inf, timing
        self.last_check = self.awake_start = time.monotonic()
        self.phase = Phase(0, "starting", self.last_check, self.timeout)

    def set_phase(self, name: str, timeout: float | None = None) -> None:
        """Start the next phase, with its own timeout in seconds or that of all phases."""
        timeout = self.timeout if timeout is None else timeout
        self.phase = Phase(self.phase.number + 1, name, time.monotonic(), timeout)

    @contextmanager
    def exclusive_phase(self, is_waiting: bool) -> Iterator[None]:
        """Let one rank work while the others wait for it; then restart the phase's time limit."""
        phase = self.phase
        if is_waiting:
            self.phase = phase._replace(number=math.inf)
        try:
            yield
        finally:
            self.phase = phase._replace(start_time=time.monotonic())

    def record_check(self) -> None:
        """Record that the process is running; the watchdog calls it at every check."""
        self.awake_start = self.awake_since()
        self.last_check = time.monotonic()

    def awake_since(self) -> float:
        """Return the time.monotonic() since which this process has run without a pause."""
        now = time.monotonic()
        return now if now - self.last_check > self.timing.pause_threshold else self.awake_start

    def time_in_phase(self, phase: Phase) -> float:
        """Return the seconds in this phase that count towards its time limit."""
        return time.monotonic() - max(phase.start_time, self.awake_since())

    def describe_timeout(self, phase: Phase) -> str:
        """Return a sentence on the time limit of a phase and how to change it."""
        if phase.timeout != self.timeout:
            return f"This phase may take {phase.timeout:,g} s."
        return (
            f"A phase may take {phase.timeout:,g} s; raise train.stability.stall_timeout for work "
            f"that takes longer (0: no limit)."
        )


class Watchdog:
    """Ends a process that trains as a single rank when it stays in a phase for too long."""

    def __init__(self, phases: PhaseTracker) -> None:
        self.phases, self.timing = phases, phases.timing
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, name="watchdog", daemon=True)]
        self.threads[0].start()

    def close(self) -> None:
        """Stop the threads."""
        self.stopped.set()
        for thread in self.threads:
            thread.join(2 * self.timing.check_interval)

    def _run(self) -> None:
        while not self.stopped.wait(self.timing.check_interval):
            self.phases.record_check()
            self._check()

    def _check(self) -> None:
        phase = self.phases.phase
        seconds = self.phases.time_in_phase(phase)
        if seconds > phase.timeout:
            exit_process(
                f"process {os.getpid()} on {socket.gethostname()} has been in "
                f'"{phase.name}" for {seconds:,.0f} s. {HANG_ADVICE} '
                f"{self.phases.describe_timeout(phase)}"
            )


class Heartbeat(NamedTuple):
    """A message of a rank: it is alive, in this phase."""

    sequence: int
    pid: int
    host: str
    phase_index: float  # number of its phase
    phase: str

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read a heartbeat from the store's bytes."""
        return cls(*json.loads(text))

    def encode(self) -> str:
        """Return the heartbeat as JSON."""
        return json.dumps(self)


def slowest_ranks(heartbeats: dict[int, Heartbeat]) -> list[int]:
    """Return the ranks that have started the fewest phases."""
    fewest = min(beat.phase_index for beat in heartbeats.values())
    return [rank for rank, beat in heartbeats.items() if beat.phase_index == fewest]


def describe_hang(heartbeats: dict[int, Heartbeat], seconds: float) -> str:
    """Describe which ranks hang, and which wait for them."""
    slowest = slowest_ranks(heartbeats)
    hung = _group_by_phase(heartbeats, slowest)
    waiting = _group_by_phase(heartbeats, heartbeats.keys() - slowest)
    if len(heartbeats) == len(slowest) > 1 and len(hung) == 1:
        (phase,) = hung
        return f'all {len(slowest)} ranks have been stuck in "{phase}" for {seconds:,.0f} s'
    parts = [
        f"{_format_ranks(ranks)} on {_format_hosts(heartbeats, ranks)} "
        f'{"has" if len(ranks) == 1 else "have"} been stuck in "{phase}" for {seconds:,.0f} s'
        for phase, ranks in hung.items()
    ]
    them = "it" if len(slowest) == 1 else "them"
    parts += [
        f'{_format_ranks(ranks)} {"waits" if len(ranks) == 1 else "wait"} for {them} in "{phase}"'
        for phase, ranks in waiting.items()
    ]
    return ", and ".join(parts)


def _group_by_phase(heartbeats: dict[int, Heartbeat], ranks: Iterable[int]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for rank in sorted(ranks):
        groups[heartbeats[rank].phase].append(rank)
    return groups


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
    """Write a sentence to stderr and, on request, the stack of every thread."""
    echo_stderr(f"gnano: {reason}")
    if with_stacks:
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=2)  # sys.stderr need not have a file descriptor


def exit_process(reason: str, with_stacks: bool = True) -> NoReturn:
    """End the process immediately, because its main thread may be in a call that never returns."""
    report_to_stderr(reason, with_stacks)
    os._exit(1)
