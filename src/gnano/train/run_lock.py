"""The lock of a run: only one process at a time may train in a folder.

Rank 0 holds a lock on `run.lock`. The kernel releases it when the process ends, in whatever way, so
a killed run needs no cleanup.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnano.utils.files import try_lock

if TYPE_CHECKING:
    from gnano.train.distributed.context import DistContext

LOCK_FILE = "run.lock"
LOCK_ATTEMPTS = 3  # `current_owner` in another process may hold the lock for a moment


@contextmanager
def run_lock(run: Path, world: "DistContext") -> Iterator[None]:
    """Hold the run's lock; raise ValueError where another process has it."""
    files: list[int] = []  # of rank 0
    world.run_on_main(lambda: files.append(_acquire_run_lock(run)))
    try:
        yield
    finally:
        for file in files:
            if not (run / "recipe.toml").exists():  # refused before the run was created
                (run / LOCK_FILE).unlink(missing_ok=True)
                with suppress(OSError):  # the folder has other files
                    run.rmdir()
            os.close(file)


def _acquire_run_lock(run: Path) -> int:
    """Return the descriptor of the locked file, which names this process as its owner."""
    run.mkdir(parents=True, exist_ok=True)
    # not inherited by child processes, which may outlive this process
    file = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            try_lock(file, fcntl.LOCK_EX)
            break
        except BlockingIOError:
            if attempt < LOCK_ATTEMPTS:
                time.sleep(0.1)
                continue
            owner = _read_lock_owner(file)
            os.close(file)
            raise ValueError(
                f"{run} is being trained by process {owner.get('pid', '?')} on "
                f"{owner.get('host', '?')} since {owner.get('since', '?')}. Stop it first, or "
                f"choose another folder (--out)."
            ) from None
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode() + b"\n", 0)
    return file


def current_owner(run: Path) -> dict[str, Any] | None:
    """Return the process that trains this run now (pid, host, since), or None."""
    try:
        file = os.open(run / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try_lock(file, fcntl.LOCK_SH)
        return None
    except BlockingIOError:
        return _read_lock_owner(file)
    finally:
        os.close(file)


def _read_lock_owner(file: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
