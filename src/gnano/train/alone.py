"""Who else works on this run? Nobody: two processes on one folder would undo each other's work.

The first rank holds a lock on `run.lock` for as long as it lives. The kernel lets go of it when
the process ends, however it ends, so a killed run leaves nothing behind that has to be cleared.
"""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gnano.utils.flock import try_lock

if TYPE_CHECKING:  # without torch, a list of runs is there at once
    from gnano.train.ranks.world import World

NAME = "run.lock"
LOOKS = 3


class Alone:
    """While entered, no other process can enter for the same folder.

    Raises ValueError, on entering, where another one has it.
    """

    def __init__(self, run: Path, world: "World") -> None:
        self.path, self.world = run / NAME, world
        self.file = -1

    def __enter__(self) -> Self:
        self.world.by_first(self._take)
        return self

    def _take(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # not inherited by programs that are started from here: it would outlive this process
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            for _ in range(LOOKS - 1):
                with suppress(BlockingIOError):
                    try_lock(self.file, fcntl.LOCK_EX)
                    break
                time.sleep(0.1)  # someone may only be asking who holds it
            else:
                try_lock(self.file, fcntl.LOCK_EX)
        except BlockingIOError:
            other = _content(self.file)
            os.close(self.file)
            self.file = -1
            raise ValueError(
                f"{self.path.parent} is being trained by process {other.get('pid', '?')} on "
                f"{other.get('host', '?')} since {other.get('since', '?')}: stop that one first, "
                f"or name another folder (--out)."
            ) from None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, json.dumps(me).encode() + b"\n", 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.file < 0:
            return
        if not (self.path.parent / "recipe.toml").exists():  # refused before there was a run
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # where it was not empty before
                self.path.parent.rmdir()
        os.close(self.file)


def holder(run: Path) -> dict[str, Any] | None:
    """Who trains this run now: pid, host, since; None where nobody does."""
    try:
        file = os.open(run / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try_lock(file, fcntl.LOCK_SH)
        return None
    except BlockingIOError:
        return _content(file)
    finally:
        os.close(file)


def _content(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
