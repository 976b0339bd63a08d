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

from gnano.train.ranks.stall import LOOK, LoneWatch, Progress, Sign, behind, held_up, leave, tell
from gnano.utils.host import is_running

FAILED = "failed"
GONE = "the ranks' meeting place is gone, and the process that kept it, mostly rank 0 ({})"


class Verdict(NamedTuple):
    """Why all ranks end."""

    reason: str
    stuck: list[int]  # ranks that hang


class Lifeline(LoneWatch):
    """The watch over several ranks, with a second thread that uses the store."""

    def __init__(self, store: Store, rank: int, size: int, progress: Progress) -> None:
        # its own connection: the other one may be blocked in a wait
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.rank, self.size = rank, size
        self.name = f"rank {rank} on {socket.gethostname()}"
        self.advice = ""  # where all ranks hang in the same exchange
        self.seen: dict[int, tuple[bytes, float]] = {}  # last sign of a rank, and when it was new
        self.rounds = self.rounds_before = self.unanswered = 0
        self.told = threading.Event()
        super().__init__(progress)
        self.threads.append(threading.Thread(target=self._beat, name="lifeline", daemon=True))
        self.threads[1].start()

    def failed(self, error: BaseException) -> None:
        """Tell the others why this rank ends; exits immediately where another one failed first."""
        if self.told.is_set():
            self.over.wait(self.timing.grace)  # the watch is about to end this process
        # an exchange that another rank broke off is a RuntimeError like many others
        maybe_theirs = isinstance(error, RuntimeError) and not isinstance(error, OutOfMemoryError)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        try:
            if verdict := self._verdict(wait=self.timing.grace if maybe_theirs else 0.0):
                self._leave(verdict.reason)
            self._say(f"{self.name} failed while {self.progress.phase.name}: {reason}")
        except DistError:
            self._leave(GONE.format(reason))
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # so that torchrun's summary has it too

    def _beat(self) -> None:
        while not self.over.wait(self.timing.every if self.rounds else 0):
            try:
                self.rounds += 1
                self.store.set(f"life/{self.rank}", self._sign().write())
                verdict = self._verdict() or self._dead() or self._stuck()
            except DistError as error:
                if not self.over.wait(2 * self.timing.every):  # unless all of them are leaving
                    self._leave(GONE.format(error))
                return
            if verdict and verdict.stuck:
                self.told.set()
                tell(f"{self.name} stops: {verdict.reason}", stacks=self.rank in verdict.stuck)
                if not self.over.wait(3 * self.timing.every):  # all have read it: the store may go
                    os._exit(1)
                return
            if verdict:
                if not self.over.wait(self.timing.grace):  # the main thread may leave on its own
                    self._leave(verdict.reason)
                return

    def _check(self) -> None:
        """End this rank where the other thread waits for the store for too long."""
        self.unanswered = self.unanswered + 1 if self.rounds == self.rounds_before else 0
        self.rounds_before = self.rounds
        # counted in checks: a pause of this process itself must not count
        if self.unanswered * self.timing.every > self.timing.silent:
            self._leave(GONE.format(f"no answer for {self.timing.silent:g} s"))

    def _sign(self) -> Sign:
        phase = self.progress.phase
        return Sign(self.rounds, os.getpid(), socket.gethostname(), phase.number, phase.name)

    def _dead(self) -> Verdict | None:
        """Return why all must end if a watched rank has died or lost its heartbeat."""
        now, awake = time.monotonic(), self.progress.awake_since()
        for rank in range(self.size) if self.rank == 0 else [0]:
            if rank == self.rank or not self.store.check([f"life/{rank}"]):
                continue
            written = self.store.get(f"life/{rank}")
            before, since = self.seen.get(rank, (b"", now))
            if written != before:
                self.seen[rank] = written, now
                since = now
            since = max(since, awake)  # a pause of this process itself must not count
            sign = Sign.read(written)
            reason = ""
            if sign.host == socket.gethostname() and not is_running(sign.pid):
                reason = (
                    f"died while {sign.phase}, without a word: killed, perhaps for memory (dmesg "
                    f"tells)"
                )
            elif now - since > self.timing.silent:
                reason = (
                    f"has given no sign of life for {self.timing.silent:g} s while {sign.phase}: "
                    f"its machine is gone, or it is stopped or held up as a whole"
                )
            if reason:
                return self._say(f"rank {rank} on {sign.host} (process {sign.pid}) {reason}")
        return None

    def _stuck(self) -> Verdict | None:
        """Return why all must end if this rank hangs and no other is further behind."""
        phase = self.progress.phase
        held = self.progress.held(phase)
        if held < phase.limit + 2 * self.timing.every:  # by then the others' heartbeats are new
            return None
        signs = {
            rank: Sign.read(self.store.get(f"life/{rank}"))
            for rank in range(self.size)
            if self.store.check([f"life/{rank}"])
        }
        late = behind(signs)
        # a rank that waits for another leaves the report to that: it may be allowed more time
        if self.rank not in late or signs[self.rank].number != phase.number:
            return None
        together = len(late) == self.size
        reason = (
            f"{held_up(signs, held)}. {self.advice if together else LOOK + '.'} "
            f"{self.progress.rule(phase)}"
        )
        return self._say(reason, late)

    def _say(self, reason: str, stuck: Sequence[int] = ()) -> Verdict:
        """Store a verdict; one that is there already is returned, as this is its consequence."""
        stored = self.store.compare_set(FAILED, "", json.dumps((reason, stuck)))
        return Verdict(*json.loads(stored))

    def _verdict(self, wait: float = 0.0) -> Verdict | None:
        end = time.monotonic() + wait
        while not self.store.check([FAILED]):
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)
        return Verdict(*json.loads(self.store.get(FAILED)))

    def _leave(self, reason: str) -> NoReturn:
        leave(f"{self.name} stops: {reason}", stacks=False)
