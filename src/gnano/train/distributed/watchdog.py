"""Ends a run in which a process hangs or a rank has died, with an error that names it.

The training thread starts a phase with one assignment, cheap enough for every step; another thread
checks once a second whether the phase has lasted longer than its time limit:

    reading the data of step 12 ──▶ step 12 ──▶ saving ──▶ …       phases, numbered

After a pause of the process itself (SIGSTOP, a laptop's sleep) the time limit starts again.

With several ranks, a rank that hangs or dies must not leave the others waiting in their next
collective. Each has a second thread that writes a heartbeat to the shared store every second and
checks for:

    a rank that reports a failure          "rank 2 on gpu-b: CUDA out of memory …"
    a rank whose heartbeat has stopped     killed, or its machine is gone, or a call holds the GIL
    a rank that is behind all the others   and over the time limit of its phase

All ranks go through the same phases with the same numbers, so the lowest number is at fault:

    rank 0   step 11 ▶ reading step 12 ▶ step 12 …         waits in a collective
    rank 1   step 11 ▶ reading step 12 …                   is behind

Rank 0 monitors all ranks and all monitor rank 0. The first thread never uses the store, so it
detects a store that does not respond.
"""

import faulthandler
import json
import math
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from torch import OutOfMemoryError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from gnano.train.distributed.flight_recorder import save_collectives
from gnano.utils.platform_support import is_running
from gnano.utils.terminal import echo_stderr

MAX_HOSTS_SHOWN = 4  # hosts that a message names
FAILURE_KEY = "failure"
STORE_LOST = "the ranks' shared store is gone, with the process that ran it, usually rank 0 ({})"
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


class Failure(NamedTuple):
    """The reason why all ranks end."""

    reason: str
    hung_ranks: list[int]


class Heartbeat(NamedTuple):
    """A message of a rank: it is alive, in this phase; a list in JSON in the store."""

    sequence: int
    pid: int
    host: str
    phase_index: float  # number of its phase
    phase: str


class HeartbeatMonitor(Watchdog):
    """The watchdog of several ranks, with a second thread that uses the store."""

    def __init__(
        self, store: Store, rank: int, world_size: int, timeout: float, timing: WatchdogTiming
    ) -> None:
        super().__init__(timeout, timing)
        # a separate connection: the other one may be blocked in a wait
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.rank, self.world_size = rank, world_size
        self.label = f"rank {rank} on {socket.gethostname()}"
        self.hang_advice = ""  # for a hang of all ranks in the same collective
        self.trace_folder: Path | None = None  # for the last collectives of a run that hangs
        self.last_seen: dict[int, tuple[bytes, float]] = {}  # a rank's last heartbeat and its time
        self.beats = self.checked_beats = self.missed_beats = 0
        self.is_exiting = threading.Event()
        self.threads.append(
            threading.Thread(target=self._run_heartbeat, name="heartbeat", daemon=True)
        )

    def report_failure(self, error: BaseException) -> None:
        """Report to the other ranks why this one ends; exit if another one failed first."""
        if self.is_exiting.is_set():
            self.stopped.wait(self.timing.exit_grace)  # the heartbeat thread is about to exit
        # a collective that another rank aborted is a RuntimeError like many others
        maybe_theirs = isinstance(error, RuntimeError) and not isinstance(error, OutOfMemoryError)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        try:
            if failure := self._read_failure(self.timing.exit_grace if maybe_theirs else 0.0):
                self._exit(failure.reason)
            self._publish_failure(f'{self.label} failed in "{self.phase.name}": {reason}')
        except DistError:
            self._exit(STORE_LOST.format(reason))
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # for torchrun's summary

    def _run_heartbeat(self) -> None:
        interval, failure = self.timing.check_interval, None
        while failure is None:
            if self.stopped.wait(interval if self.beats else 0):
                return
            try:
                self.beats += 1
                phase, host = self.phase, socket.gethostname()
                beat = Heartbeat(self.beats, os.getpid(), host, phase.number, phase.name)
                self.store.set(f"heartbeat/{self.rank}", json.dumps(beat))
                failure = self._read_failure() or self._find_dead_rank() or self._find_hung_rank()
            except DistError as error:
                if not self.stopped.wait(2 * interval):  # all ranks may be ending
                    self._exit(STORE_LOST.format(error))
                return
        if failure.hung_ranks:
            self.is_exiting.set()
            folder, timeout = self.trace_folder, self.timing.exit_grace
            trace = save_collectives(folder, self.rank, timeout) if folder else ""
            has_stacks = self.rank in failure.hung_ranks
            report_to_stderr(f"{self.label} stops: {failure.reason}{trace}", has_stacks)
            if not self.stopped.wait(3 * interval):  # all ranks have read it: the store may end
                os._exit(1)
        elif not self.stopped.wait(self.timing.exit_grace):  # the main thread may exit by itself
            self._exit(failure.reason)

    def _check(self) -> None:
        """End this rank if its heartbeat thread has waited for the store for too long."""
        self.missed_beats = self.missed_beats + 1 if self.beats == self.checked_beats else 0
        self.checked_beats = self.beats
        # counted in checks, so that a pause of this process does not count
        if self.missed_beats * self.timing.check_interval > self.timing.heartbeat_timeout:
            self._exit(STORE_LOST.format(f"no response for {self.timing.heartbeat_timeout:g} s"))

    def _find_dead_rank(self) -> Failure | None:
        """Publish and return a failure if a monitored rank has died or lost its heartbeat."""
        now, awake = time.monotonic(), self.awake_since()
        timeout = self.timing.heartbeat_timeout
        for rank in range(self.world_size) if self.rank == 0 else [0]:
            if rank == self.rank or not self.store.check([f"heartbeat/{rank}"]):
                continue
            encoded = self.store.get(f"heartbeat/{rank}")
            previous, since = self.last_seen.get(rank, (b"", now))
            if encoded != previous:
                self.last_seen[rank] = encoded, now
                since = now
            since = max(since, awake)  # a pause of this process does not count
            beat = Heartbeat(*json.loads(encoded))
            reason = ""
            if beat.host == socket.gethostname() and not is_running(beat.pid):
                reason = (
                    f'died in "{beat.phase}" without an error: it was killed, perhaps for memory '
                    f"(see dmesg)"
                )
            elif now - since > timeout:
                reason = (
                    f'has sent no heartbeat for {timeout:g} s in "{beat.phase}": its machine is '
                    f"gone, or the process is stopped"
                )
            if reason:
                return self._publish_failure(
                    f"rank {rank} on {beat.host} (process {beat.pid}) {reason}"
                )
        return None

    def _find_hung_rank(self) -> Failure | None:
        """Publish and return a failure if this rank hangs and no other is further behind."""
        phase = self.phase
        seconds = self.time_in_phase(phase)
        # two more checks: by then the heartbeats of the others are up to date
        if seconds < phase.timeout + 2 * self.timing.check_interval:
            return None
        heartbeats = {
            rank: Heartbeat(*json.loads(self.store.get(f"heartbeat/{rank}")))
            for rank in range(self.world_size)
            if self.store.check([f"heartbeat/{rank}"])
        }
        slowest = slowest_ranks(heartbeats)
        # a rank that waits for another leaves the report to that one, whose limit may be higher
        if self.rank not in slowest or heartbeats[self.rank].phase_index != phase.number:
            return None
        all_hang = len(slowest) == self.world_size
        reason = (
            f"{describe_hang(heartbeats, seconds)}. "
            f"{self.hang_advice if all_hang else HANG_ADVICE} {self.describe_timeout(phase)}"
        )
        return self._publish_failure(reason, slowest)

    def _publish_failure(self, reason: str, hung_ranks: Sequence[int] = ()) -> Failure:
        """Store a failure; return the one that was stored first, which caused any later one."""
        stored = self.store.compare_set(FAILURE_KEY, "", json.dumps((reason, hung_ranks)))
        return Failure(*json.loads(stored))

    def _read_failure(self, timeout: float = 0.0) -> Failure | None:
        deadline = time.monotonic() + timeout
        while not self.store.check([FAILURE_KEY]):
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)
        return Failure(*json.loads(self.store.get(FAILURE_KEY)))

    def _exit(self, reason: str) -> NoReturn:
        exit_process(f"{self.label} stops: {reason}", with_stacks=False)


def slowest_ranks(heartbeats: dict[int, Heartbeat]) -> list[int]:
    """Return the ranks that have started the fewest phases."""
    fewest = min(beat.phase_index for beat in heartbeats.values())
    return [rank for rank, beat in heartbeats.items() if beat.phase_index == fewest]


def describe_hang(heartbeats: dict[int, Heartbeat], seconds: float) -> str:
    """Describe which ranks hang, and which wait for them."""
    slowest = set(slowest_ranks(heartbeats))
    hung: dict[str, list[int]] = defaultdict(list)  # ranks by phase
    waiting: dict[str, list[int]] = defaultdict(list)
    for rank, beat in sorted(heartbeats.items()):
        (hung if rank in slowest else waiting)[beat.phase].append(rank)
    if len(heartbeats) == len(slowest) > 1 and len(hung) == 1:
        (phase,) = hung
        return f'all {len(slowest)} ranks have been stuck in "{phase}" for {seconds:,.0f} s'
    parts = []
    for phase, ranks in hung.items():
        hosts = list(dict.fromkeys(heartbeats[rank].host for rank in ranks))
        more = f" and {len(hosts) - MAX_HOSTS_SHOWN} more" if len(hosts) > MAX_HOSTS_SHOWN else ""
        parts.append(
            f"{_format_ranks(ranks)} on {', '.join(hosts[:MAX_HOSTS_SHOWN])}{more} "
            f'{"has" if len(ranks) == 1 else "have"} been stuck in "{phase}" for {seconds:,.0f} s'
        )
    them = "it" if len(slowest) == 1 else "them"
    for phase, ranks in waiting.items():
        verb = "waits" if len(ranks) == 1 else "wait"
        parts.append(f'{_format_ranks(ranks)} {verb} for {them} in "{phase}"')
    return ", and ".join(parts)


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
