"""Writes checkpoints from a background thread, out of a copy that training does not touch.

    training   … step 500 ─ copy ─ step 501 … step 517 ─ "saved" …
    thread                   └─ write, sync, rename, read back, old ones go ─┘

A write that fails (a full disk, a folder that may not be written, a mount that has gone) does not
stop training: it is reported once, and the same copy is tried again until it is written or replaced
by the next one. No checkpoint is removed before its successor has been read back from the disk.
"""

import errno
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from gnano.train.config import TrainConfig
from gnano.train.saving.checkpoint import Beside, Snapshot, write_checkpoint
from gnano.train.saving.folders import FOLDER, checkpoints
from gnano.train.saving.hashes import verify
from gnano.train.saving.retention import clear_torn, remove, tidy
from gnano.utils.formatting import format_gb

LogEvent = Callable[..., None]  # the event's name, then its facts by keyword
RETRY = 20.0  # seconds until a write that failed is tried again
LAST_TRIES = 10.0  # seconds of trying once the run has been asked to stop
LEAVE = 2.0  # seconds for the thread to come to the end of a file, at a second Ctrl-C


class _CancelledError(Exception):
    """Raised in the thread, between two files."""


class Saver:
    """Writes the checkpoints of a run; on ranks that never call `start`, it does nothing."""

    def __init__(
        self,
        run: Path,
        settings: TrainConfig,
        beside: Beside,
        log_event: LogEvent,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.settings, self.beside = run, settings, beside
        self.log_event, self.say = log_event, say
        self.buffers: dict[str, Tensor] = {}
        self.thread: threading.Thread | None = None
        self.abandon = threading.Event()
        self.hurry = False  # the run is ending: the next start verifies and removes old ones
        self.step = -1  # of the snapshot that is being written
        # written by the thread, read by training
        self.saved: Path | None = None
        self.failed: OSError | ValueError | None = None  # the last attempt, until the next begins
        self.failures: deque[str] = deque()  # not reported yet
        self.bug: BaseException | None = None
        self.told: str | None = None  # the failure reported last

    def damaged(self, aside: Path, reason: str) -> None:
        """Report that a damaged checkpoint was moved to `aside`."""
        self.log_event("damaged", folder=aside.name, reason=reason)
        self.say(f"{reason} The run goes on from the checkpoint before it; {aside} is left to you.")

    def foresee(self, size: int) -> None:
        """Raise ValueError where a checkpoint of `size` bytes does not fit; warn if too few do."""
        free = shutil.disk_usage(self.run / FOLDER).free
        # the newest ones, the best, and the next, which is written before an old one is removed
        most = self.settings.keep + self.settings.keep_best + 1
        still = max(most - len(checkpoints(self.run)), 1)
        taken = format_gb(size, ".3g")
        room = f"{format_gb(free, '.3g')} are free in {self.run}, a checkpoint takes {taken}"
        if free < size:
            raise ValueError(f"{room}: free some space, or choose another folder (--out).")
        if free < size * still:
            self.say(f"{room}, and {still} more are kept (train.keep): that will not fit.")

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors to the CPU, into buffers that are reused by every save."""
        for name, tensor in tensors.items():
            if name not in self.buffers:
                # pinned: a GPU then copies at the full rate of its bus
                pinned = tensor.device.type == "cuda"
                self.buffers[name] = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            self.buffers[name].copy_(tensor, non_blocking=True)
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            torch.accelerator.synchronize()
        return {name: self.buffers[name] for name in tensors}

    def ready(self) -> None:
        """Wait until the last copy is no longer needed; give it up if it cannot be written."""
        while self.thread is not None and self.failed is None:
            self.thread.join(0.1)
            self.look()
        self._stop_thread()

    def start(self, snapshot: Snapshot) -> None:
        """Start writing a snapshot that was copied after `ready()`."""
        assert self.thread is None
        self.saved, self.failed, self.bug, self.told = None, None, None, None
        self.abandon.clear()
        self.step = snapshot.step
        self.thread = threading.Thread(
            target=self._work, args=(snapshot,), name="saver", daemon=True
        )
        self.thread.start()

    def look(self) -> None:
        """Report how the write is going; called from the training thread."""
        ended = self.thread is not None and not self.thread.is_alive()  # before reading the rest
        while self.failures:
            failure = self.failures.popleft()
            if failure != self.told:
                self.told = failure
                self.log_event("not saved", step=self.step, reason=failure)
                self.say(
                    f"The checkpoint of step {self.step:,} could not be saved ({failure}): the "
                    f"training goes on, and it is tried again every {RETRY:g} s."
                )
        if ended:
            self.thread = None
            if self.bug is not None:
                raise self.bug
            if self.saved is not None:
                self.log_event("saved", step=self.step, folder=self.saved.name)
                if self.told:
                    self.say(f"The checkpoint of step {self.step:,} is saved now.")

    def finish(self, stopped_at: Callable[[], float | None] = lambda: None) -> None:
        """Wait until a write in progress is done.

        `stopped_at` gives the time.monotonic() at which the run was asked to stop, if it was. A
        write that fails is tried again until then and `LAST_TRIES` longer, and raises its error.
        """
        while self.thread is not None:
            since = stopped_at()
            self.hurry = self.hurry or since is not None
            self.thread.join(0.1)
            self.look()
            late = since is not None and time.monotonic() > since + LAST_TRIES
            if self.failed is not None and late:
                failure = self.failed
                self._stop_thread()
                if self.saved is None:  # the last try may have succeeded meanwhile
                    raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Finish a write after an error in training; stop it when the process must end."""
        if isinstance(error, Exception):
            self.ready()
        elif error is not None and self.thread is not None:
            self.abandon.set()  # what it has written so far is no checkpoint
            self.thread.join(LEAVE)

    def _stop_thread(self) -> None:
        if self.thread is not None:
            self.abandon.set()
            self.thread.join()
            self.look()

    def _work(self, snapshot: Snapshot) -> None:
        try:
            while not self._try_to_write(snapshot):
                if self.abandon.wait(RETRY):
                    return
        except _CancelledError:
            pass
        except BaseException as error:  # a bug: training must end with it
            self.bug = error

    def _try_to_write(self, snapshot: Snapshot) -> bool:
        settings = self.settings
        self.failed = None
        try:
            clear_torn(self.run)
            need_room(self.run, snapshot.bytes)
            folder = write_checkpoint(self.run, snapshot, self.beside, self._check_cancelled)
            if self.hurry:
                self.saved = folder
                return True
            try:
                verify(folder, from_disk=True)
            except ValueError:
                remove(folder)  # the disk did not keep what was written
                raise
        except (OSError, ValueError) as error:
            self._record_failure(error)
            return False
        try:
            tidy(self.run, settings.keep, settings.keep_every, settings.keep_best)
        except OSError as error:
            self._record_failure(error)  # the new one is complete, and one too many does no harm
        self.saved = folder
        return True

    def _record_failure(self, error: OSError | ValueError) -> None:
        self.failures.append(str(error))
        self.failed = error

    def _check_cancelled(self) -> None:
        if self.abandon.is_set():
            raise _CancelledError


def need_room(run: Path, size: int) -> None:
    """Raises OSError where the disk has no room for so many bytes."""
    free = shutil.disk_usage(run / FOLDER).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: a checkpoint takes {format_gb(size, '.3g')}, and "
            f"{format_gb(free, '.3g')} are free",
            str(run / FOLDER),
        )
