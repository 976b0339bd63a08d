"""Is everybody still there? A rank that dies must not leave the others waiting for ever.

Beside the training each rank has a thread that every second writes a sign of life into the
store where the ranks met, and looks for two things there:

    a rank that says it failed             "rank 2 on gpu-b: CUDA out of memory …"
    a rank whose signs have stopped        killed, or its machine is gone

Either ends this process with a sentence that names the rank, for its main thread may hang in
an exchange that the dead rank will never join. Rank 0 watches all, all watch rank 0.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import OutOfMemoryError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

EVERY = 1.0  # seconds between two signs of life
SILENT = 40.0  # seconds without one after which a rank counts as dead
GRACE = 10.0  # seconds in which a rank that lost its peers waits to learn who failed
FAILED = "failed"
GONE = "the ranks' meeting place is gone, and the process that kept it, mostly rank 0 ({})"


class Lifeline:
    def __init__(self, store: Store, rank: int, size: int) -> None:
        # its own connection: the other may be waiting for someone
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.rank, self.size = rank, size
        self.name = f"rank {rank} on {socket.gethostname()}"
        self.phase = "starting"
        self.deadline: tuple[float, str] | None = None
        self.seen: dict[int, tuple[bytes, float]] = {}  # last sign of a rank, and when it was new
        self.beats = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)
        self.thread.start()

    @contextmanager
    def during(self, phase: str, limit: float | None = None, advice: str = "") -> Iterator[None]:
        """What this rank is doing, told when it fails; over `limit` seconds it ends with advice."""
        before, self.phase = self.phase, phase
        if limit is not None:
            self.deadline = (time.monotonic() + limit, f"not done in {limit:g} s. {advice}")
        try:
            yield
        finally:
            self.phase, self.deadline = before, None

    def failed(self, error: BaseException) -> None:
        """Tell the others why this rank ends; ends at once where another one failed first."""
        # an exchange that breaks off is a RuntimeError like many others: who broke it off?
        maybe_theirs = isinstance(error, RuntimeError) and not isinstance(error, OutOfMemoryError)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        try:
            if verdict := self._verdict(wait=GRACE if maybe_theirs else 0.0):
                self._leave(verdict)
            self._say(f"{self.name} failed while {self.phase}: {reason}")
        except DistError:
            self._leave(GONE.format(reason))
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # so that torchrun's summary has it too

    def close(self) -> None:
        self.over.set()
        self.thread.join(2 * EVERY)

    def _watch(self) -> None:
        while not self.over.wait(EVERY if self.beats else 0):
            try:
                self._beat()
                verdict = self._verdict() or self._dead() or self._overdue()
            except DistError as error:
                if not self.over.wait(2 * EVERY):  # unless all of them are just leaving
                    self._leave(GONE.format(error))
                return
            if verdict:
                if not self.over.wait(GRACE):  # the main thread may learn of it and leave itself
                    self._leave(verdict)
                return

    def _beat(self) -> None:
        self.beats += 1
        sign = f"{self.beats}|{os.getpid()}|{socket.gethostname()}|{self.phase}"
        self.store.set(f"life/{self.rank}", sign)

    def _dead(self) -> str | None:
        """The first of the watched ranks that shows no life any more, in words."""
        now = time.monotonic()
        for rank in range(self.size) if self.rank == 0 else [0]:
            if rank == self.rank or not self.store.check([f"life/{rank}"]):
                continue
            sign = self.store.get(f"life/{rank}")
            before, since = self.seen.get(rank, (b"", now))
            if sign != before:
                self.seen[rank] = sign, now
                since = now
            _, pid, host, phase = sign.decode().split("|", 3)
            here = host == socket.gethostname()
            if now - since > SILENT or (here and not _alive(int(pid))):
                death = (
                    f"rank {rank} on {host} (process {pid}) died while {phase}, without a word: "
                    f"killed, perhaps for memory (dmesg tells)"
                )
                self._say(death)
                return death
        return None

    def _overdue(self) -> str | None:
        """What this rank should have done by now, in words."""
        if self.deadline is None or time.monotonic() < self.deadline[0]:
            return None
        reason = f"{self.name} is held up in {self.phase}: {self.deadline[1]}"
        self._say(reason)
        return reason

    def _say(self, reason: str) -> None:
        """The first reason stands; who fails later fails because of it."""
        self.store.compare_set(FAILED, "", reason)

    def _verdict(self, wait: float = 0.0) -> str | None:
        end = time.monotonic() + wait
        while not self.store.check([FAILED]):
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)
        verdict: bytes = self.store.get(FAILED)
        return verdict.decode()

    def _leave(self, reason: str) -> None:
        print(f"gnano: {self.name} stops: {reason}", file=sys.stderr, flush=True)
        os._exit(1)  # the main thread may be inside an exchange, from where nothing returns


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs; where there is no /proc, its signs must tell."""
    if not Path("/proc/self/stat").exists():
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
