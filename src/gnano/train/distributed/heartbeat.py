"""Heartbeats between ranks, so that one that dies or hangs does not leave the others waiting.

Each rank has a thread that writes a heartbeat to the shared store every second and checks for:

    a rank that reports a failure          "rank 2 on gpu-b: CUDA out of memory …"
    a rank whose heartbeat has stopped     killed, or its machine is gone
    a rank that is behind all the others   and over the time limit of its phase (`watchdog.py`)

Each of these ends the process with an error that names the rank, because the main thread may hang
in a collective that the other rank will never join. Rank 0 monitors all ranks and all monitor rank
0; a second thread, which never uses the store, detects a store that does not respond.
"""

import json
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Self

from torch import OutOfMemoryError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from gnano.train.distributed.watchdog import (
    HANG_ADVICE,
    Watchdog,
    WatchdogTiming,
    exit_process,
    report_to_stderr,
)
from gnano.utils.platform_support import is_running

MAX_HOSTS_SHOWN = 4  # hosts that a message names
FAILURE_KEY = "failure"
STORE_LOST = "the ranks' shared store is gone, with the process that ran it, usually rank 0 ({})"


class Failure(NamedTuple):
    """The reason why all ranks end."""

    reason: str
    hung_ranks: list[int]


class Heartbeat(NamedTuple):
    """A message of a rank: it is alive, in this phase; JSON in the store."""

    sequence: int
    pid: int
    host: str
    phase_index: float  # number of its phase
    phase: str

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read a heartbeat from the store's bytes."""
        return cls(*json.loads(text))


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
            report_to_stderr(
                f"{self.label} stops: {failure.reason}", with_stacks=self.rank in failure.hung_ranks
            )
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
            beat = Heartbeat.decode(encoded)
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
            rank: Heartbeat.decode(self.store.get(f"heartbeat/{rank}"))
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
