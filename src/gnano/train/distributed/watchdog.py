"""Detects a process that hangs: no phase of the run may take longer than its time limit.

The training thread starts a phase with one assignment, cheap enough for every step; another thread
checks once a second whether the phase has lasted too long:

    reading the data of step 12 ──▶ step 12 ──▶ saving ──▶ …       phases, numbered

All ranks go through the same phases with the same numbers. If one hangs, the others wait for it in
their next collective, so the rank with the lowest number is at fault (`heartbeat.py`):

    rank 0   step 11 ▶ reading step 12 ▶ step 12 …         waits in a collective
    rank 1   step 11 ▶ reading step 12 …                   is behind

After a pause of the process itself (SIGSTOP, a laptop's sleep) the time limit starts again. A hang
in a call that holds Python's lock cannot be detected inside the process: the other ranks detect it
by the missing heartbeat.
"""

import faulthandler
import math
import os
import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple, NoReturn

from gnano.utils.terminal import echo_stderr

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


class Watchdog:
    """Holds the phase of this process; once started, ends a process that stays in it too long."""

    def __init__(self, timeout: float = 0.0, timing: WatchdogTiming = DEFAULT_TIMING) -> None:
        """Let no phase take more than `timeout` seconds, unless it has its own limit; 0: none."""
        self.timeout, self.timing = timeout or math.inf, timing
        self.last_check = self.awake_start = time.monotonic()
        self.phase = Phase(0, "starting", self.last_check, self.timeout)
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, name="watchdog", daemon=True)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """Stop the threads."""
        self.stopped.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join(2 * self.timing.check_interval)

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

    def _run(self) -> None:
        while not self.stopped.wait(self.timing.check_interval):
            self.awake_start = self.awake_since()
            self.last_check = time.monotonic()
            self._check()

    def _check(self) -> None:
        phase = self.phase
        seconds = self.time_in_phase(phase)
        if seconds > phase.timeout:
            exit_process(
                f"process {os.getpid()} on {socket.gethostname()} has been in "
                f'"{phase.name}" for {seconds:,.0f} s. {HANG_ADVICE} '
                f"{self.describe_timeout(phase)}"
            )


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
