"""Is everybody still there? A rank that dies or hangs must not leave the others waiting for ever.

Beside the training each rank has a thread that every second writes a sign of life into the
store where the ranks met, and looks for three things there:

    a rank that says it failed             "rank 2 on gpu-b: CUDA out of memory …"
    a rank whose signs have stopped        killed, or its machine is gone
    a rank that is behind all the others   and longer in its phase than it may (`behind.py`)

Each ends this process with a sentence that names the rank, for its main thread may hang in
an exchange that the other rank will never join. Rank 0 watches all, all watch rank 0, and a
second thread, which never touches the store, sees when the store itself does not answer.
"""

import os
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

from torch import OutOfMemoryError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from gnano.train.ranks.behind import Sign, behind, held_up
from gnano.train.ranks.stall import EVERY, LOOK, Progress, leave, tell

SILENT = 40.0  # seconds without one after which a rank counts as dead
GRACE = 10.0  # seconds in which a rank that lost its peers waits to learn who failed
FAILED = "failed"
GONE = "the ranks' meeting place is gone, and the process that kept it, mostly rank 0 ({})"


class Verdict(NamedTuple):
    """Why all ranks end."""

    reason: str
    stuck: frozenset[int] = frozenset()  # ranks that do so because they are held up

    @classmethod
    def read(cls, text: bytes) -> "Verdict":
        stuck, _, reason = text.decode().partition("|")
        return cls(reason, frozenset(map(int, stuck.split())))

    def write(self) -> str:
        return f"{' '.join(map(str, sorted(self.stuck)))}|{self.reason}"


class Lifeline:
    def __init__(self, store: Store, rank: int, size: int, progress: Progress) -> None:
        # its own connection: the other may be waiting for someone
        self.store: Store = store.clone()  # type: ignore[attr-defined]
        self.rank, self.size, self.progress = rank, size, progress
        self.name = f"rank {rank} on {socket.gethostname()}"
        self.advice = ""  # where all ranks hang in the same exchange
        self.seen: dict[int, tuple[bytes, float]] = {}  # last sign of a rank, and when it was new
        self.rounds = 0
        self.over, self.told = threading.Event(), threading.Event()
        self.threads = [
            threading.Thread(target=self._watch, name="lifeline", daemon=True),
            threading.Thread(target=self._watch_the_store, name="watch", daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def failed(self, error: BaseException) -> None:
        """Tell the others why this rank ends; ends at once where another one failed first."""
        if self.told.is_set():
            self.over.wait(GRACE)  # the watch has said it, and ends this process in a moment
        # an exchange that breaks off is a RuntimeError like many others: who broke it off?
        maybe_theirs = isinstance(error, RuntimeError) and not isinstance(error, OutOfMemoryError)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        try:
            if verdict := self._verdict(wait=GRACE if maybe_theirs else 0.0):
                self._leave(verdict.reason)
            self._say(Verdict(f"{self.name} failed while {self.progress.phase.name}: {reason}"))
        except DistError:
            self._leave(GONE.format(reason))
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # so that torchrun's summary has it too

    def close(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(2 * EVERY)

    def _watch(self) -> None:
        while not self.over.wait(EVERY if self.rounds else 0):
            try:
                self.rounds += 1
                self.store.set(f"life/{self.rank}", self._sign().write())
                verdict = self._verdict() or self._dead() or self._stuck()
            except DistError as error:
                if not self.over.wait(2 * EVERY):  # unless all of them are just leaving
                    self._leave(GONE.format(error))
                return
            if verdict and verdict.stuck:
                self.told.set()
                tell(f"{self.name} stops: {verdict.reason}", stacks=self.rank in verdict.stuck)
                if not self.over.wait(3 * EVERY):  # all have read it: the store may go
                    os._exit(1)
                return
            if verdict:
                if not self.over.wait(GRACE):  # the main thread may learn of it and leave itself
                    self._leave(verdict.reason)
                return

    def _watch_the_store(self) -> None:
        """Keeps the time of phases, and ends this rank where the other thread waits for ever."""
        before, quiet = 0, 0
        while not self.over.wait(EVERY):
            self.progress.look()
            quiet = quiet + 1 if self.rounds == before else 0
            before = self.rounds
            # counted in rounds: while this process itself stood still nobody was quiet
            if quiet * EVERY > SILENT:
                self._leave(GONE.format(f"no answer for {SILENT:g} s"))

    def _sign(self) -> Sign:
        phase = self.progress.phase
        return Sign(self.rounds, os.getpid(), socket.gethostname(), phase.number, phase.name)

    def _dead(self) -> Verdict | None:
        """The first of the watched ranks that shows no life any more, in words."""
        now, awake = time.monotonic(), self.progress.awake_since()
        for rank in range(self.size) if self.rank == 0 else [0]:
            if rank == self.rank or not self.store.check([f"life/{rank}"]):
                continue
            written = self.store.get(f"life/{rank}")
            before, since = self.seen.get(rank, (b"", now))
            if written != before:
                self.seen[rank] = written, now
                since = now
            since = max(since, awake)  # while this rank stood still nobody was silent
            sign = Sign.read(written)
            who = f"rank {rank} on {sign.host} (process {sign.pid})"
            if sign.host == socket.gethostname() and not _alive(sign.pid):
                return self._say(
                    Verdict(
                        f"{who} died while {sign.phase}, without a word: killed, perhaps for "
                        f"memory (dmesg tells)"
                    )
                )
            if now - since > SILENT:
                return self._say(
                    Verdict(
                        f"{who} has given no sign of life for {SILENT:g} s while {sign.phase}: "
                        f"its machine is gone, or it is stopped or held up as a whole"
                    )
                )
        return None

    def _stuck(self) -> Verdict | None:
        """This rank is too long in its phase, and no other is further behind: why all must end."""
        phase = self.progress.phase
        held = self.progress.held(phase)
        if held < phase.limit + 2 * EVERY:  # by then the others' signs have caught up
            return None
        keys = {rank: f"life/{rank}" for rank in range(self.size)}
        signs = {
            rank: Sign.read(self.store.get(key))
            for rank, key in keys.items()
            if self.store.check([key])
        }
        late = behind(signs)
        # a rank that waits for another one leaves the word to that: it may be allowed more time
        if self.rank not in late or signs[self.rank].number != phase.number:
            return None
        together = len(late) == self.size
        reason = (
            f"{held_up(signs, held)}. {self.advice if together else LOOK + '.'} "
            f"{self.progress.rule(phase)}"
        )
        return self._say(Verdict(reason, frozenset(late)))

    def _say(self, verdict: Verdict) -> Verdict:
        """The first verdict stands; who fails later fails because of it."""
        return Verdict.read(self.store.compare_set(FAILED, "", verdict.write()))

    def _verdict(self, wait: float = 0.0) -> Verdict | None:
        end = time.monotonic() + wait
        while not self.store.check([FAILED]):
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)
        return Verdict.read(self.store.get(FAILED))

    def _leave(self, reason: str) -> NoReturn:
        leave(f"{self.name} stops: {reason}", stacks=False)


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs; where there is no /proc, its signs must tell."""
    if not Path("/proc/self/stat").exists():
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()  # with a name of whatever bytes
        return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
