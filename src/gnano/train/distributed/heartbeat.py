"""Heartbeats between ranks, so that one that dies or hangs does not leave the others waiting.

Each rank has a thread that writes a heartbeat into the ranks' store every second, and looks for
three things there:

    a rank that reports a failure          "rank 2 on gpu-b: CUDA out of memory …"
    a rank whose heartbeat has stopped     killed, or its machine is gone
    a rank that is behind all the others   and longer in its phase than it may be (`stall.py`)

Each ends this process with a sentence that names the rank, as the main thread may hang in an
exchange that the other rank will never join. Rank 0 watches all ranks and all watch rank 0; a
second thread, which never uses the store, detects a store that does not answer.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from torch import OutOfMemoryError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from gnano.train.distributed.watchdog import (
    HANG_ADVICE,
    Heartbeat,
    PhaseTracker,
    Watchdog,
    describe_hang,
    exit_process,
    report_to_stderr,
    slowest_ranks,
)
from gnano.utils.platform_support import is_running

FAILURE_KEY = "failed"
STORE_LOST = "the ranks' meeting place is gone, and the process that kept it, mostly rank 0 ({})"


class Failure(NamedTuple):
    """Why all ranks end."""

    reason: str
    hung_ranks: list[int]  # ranks that hang


class HeartbeatMonitor(Watchdog):
    """The watch over several ranks, with a second thread that uses the store."""

    def __init__(self, store: Store, rank: int, world_size: int, phases: PhaseTracker) -> None:
        # its own connection: the other one may be blocked in a wait
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.rank, self.world_size = rank, world_size
        self.label = f"rank {rank} on {socket.gethostname()}"
        self.hang_advice = ""  # where all ranks hang in the same exchange
        self.last_seen: dict[
            int, tuple[bytes, float]
        ] = {}  # last sign of a rank, and when it was new
        self.beats = self.checked_beats = self.missed_beats = 0
        self.is_exiting = threading.Event()
        super().__init__(phases)
        self.threads.append(
            threading.Thread(target=self._run_heartbeat, name="lifeline", daemon=True)
        )
        self.threads[1].start()

    def report_failure(self, error: BaseException) -> None:
        """Tell the others why this rank ends; exits immediately where another one failed first."""
        if self.is_exiting.is_set():
            self.stopped.wait(self.timing.exit_grace)  # the watch is about to end this process
        # an exchange that another rank broke off is a RuntimeError like many others
        maybe_theirs = isinstance(error, RuntimeError) and not isinstance(error, OutOfMemoryError)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        try:
            if verdict := self._read_failure(
                timeout=self.timing.exit_grace if maybe_theirs else 0.0
            ):
                self._exit(verdict.reason)
            self._publish_failure(f"{self.label} failed while {self.phases.phase.name}: {reason}")
        except DistError:
            self._exit(STORE_LOST.format(reason))
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # so that torchrun's summary has it too

    def _run_heartbeat(self) -> None:
        while not self.stopped.wait(self.timing.check_interval if self.beats else 0):
            try:
                self.beats += 1
                self.store.set(f"life/{self.rank}", self._own_heartbeat().encode())
                verdict = self._read_failure() or self._find_dead_rank() or self._find_hung_rank()
            except DistError as error:
                if not self.stopped.wait(
                    2 * self.timing.check_interval
                ):  # unless all of them are leaving
                    self._exit(STORE_LOST.format(error))
                return
            if verdict and verdict.hung_ranks:
                self.is_exiting.set()
                report_to_stderr(
                    f"{self.label} stops: {verdict.reason}",
                    with_stacks=self.rank in verdict.hung_ranks,
                )
                if not self.stopped.wait(
                    3 * self.timing.check_interval
                ):  # all have read it: the store may go
                    os._exit(1)
                return
            if verdict:
                if not self.stopped.wait(
                    self.timing.exit_grace
                ):  # the main thread may leave on its own
                    self._exit(verdict.reason)
                return

    def _check(self) -> None:
        """End this rank where the other thread waits for the store for too long."""
        self.missed_beats = self.missed_beats + 1 if self.beats == self.checked_beats else 0
        self.checked_beats = self.beats
        # counted in checks: a pause of this process itself must not count
        if self.missed_beats * self.timing.check_interval > self.timing.heartbeat_timeout:
            self._exit(STORE_LOST.format(f"no answer for {self.timing.heartbeat_timeout:g} s"))

    def _own_heartbeat(self) -> Heartbeat:
        phase = self.phases.phase
        return Heartbeat(self.beats, os.getpid(), socket.gethostname(), phase.number, phase.name)

    def _find_dead_rank(self) -> Failure | None:
        """Return why all must end if a watched rank has died or lost its heartbeat."""
        now, awake = time.monotonic(), self.phases.awake_since()
        for rank in range(self.world_size) if self.rank == 0 else [0]:
            if rank == self.rank or not self.store.check([f"life/{rank}"]):
                continue
            written = self.store.get(f"life/{rank}")
            before, since = self.last_seen.get(rank, (b"", now))
            if written != before:
                self.last_seen[rank] = written, now
                since = now
            since = max(since, awake)  # a pause of this process itself must not count
            sign = Heartbeat.decode(written)
            reason = ""
            if sign.host == socket.gethostname() and not is_running(sign.pid):
                reason = (
                    f"died while {sign.phase}, without a word: killed, perhaps for memory (dmesg "
                    f"tells)"
                )
            elif now - since > self.timing.heartbeat_timeout:
                reason = (
                    f"has given no sign of life for {self.timing.heartbeat_timeout:g} s while {sign.phase}: "
                    f"its machine is gone, or it is stopped or held up as a whole"
                )
            if reason:
                return self._publish_failure(
                    f"rank {rank} on {sign.host} (process {sign.pid}) {reason}"
                )
        return None

    def _find_hung_rank(self) -> Failure | None:
        """Return why all must end if this rank hangs and no other is further behind."""
        phase = self.phases.phase
        held = self.phases.time_in_phase(phase)
        if (
            held < phase.timeout + 2 * self.timing.check_interval
        ):  # by then the others' heartbeats are new
            return None
        signs = {
            rank: Heartbeat.decode(self.store.get(f"life/{rank}"))
            for rank in range(self.world_size)
            if self.store.check([f"life/{rank}"])
        }
        late = slowest_ranks(signs)
        # a rank that waits for another leaves the report to that: it may be allowed more time
        if self.rank not in late or signs[self.rank].phase_index != phase.number:
            return None
        together = len(late) == self.world_size
        reason = (
            f"{describe_hang(signs, held)}. {self.hang_advice if together else HANG_ADVICE + '.'} "
            f"{self.phases.describe_timeout(phase)}"
        )
        return self._publish_failure(reason, late)

    def _publish_failure(self, reason: str, hung_ranks: Sequence[int] = ()) -> Failure:
        """Store a verdict; one that is there already is returned, as this is its consequence."""
        stored = self.store.compare_set(FAILURE_KEY, "", json.dumps((reason, hung_ranks)))
        return Failure(*json.loads(stored))

    def _read_failure(self, timeout: float = 0.0) -> Failure | None:
        end = time.monotonic() + timeout
        while not self.store.check([FAILURE_KEY]):
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)
        return Failure(*json.loads(self.store.get(FAILURE_KEY)))

    def _exit(self, reason: str) -> NoReturn:
        exit_process(f"{self.label} stops: {reason}", with_stacks=False)
