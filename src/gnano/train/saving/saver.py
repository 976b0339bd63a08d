"""Who writes while the training goes on? A thread, from a copy that the training leaves alone.

    training   … step 500 ─ copy ─ step 501 … step 517 ─ "saved" …
    thread                   └─ write, sync, rename, read back, old ones go ─┘

A write that fails (a full disk, a folder that may not be written, a mount that has gone) costs
the training nothing: it is said once, and the same copy tried again until it works or the next
one takes its place. No checkpoint goes before its successor has been read back from the disk.
"""

import errno
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gnano.train.config import TrainConfig
from gnano.train.saving.checkpoint import Beside, Snapshot, write_checkpoint
from gnano.train.saving.folders import FOLDER
from gnano.train.saving.hashes import verify
from gnano.train.saving.retention import clear_torn, remove, tidy
from gnano.train.stopping import StopRequest
from gnano.train.waiting import Say
from gnano.train.watching.events import Events

RETRY = 20.0  # seconds until a write that failed is tried again
LAST_TRIES = 10.0  # seconds of trying once the run has been asked to stop
LEAVE = 2.0  # seconds for the thread to come to the end of a file, at a second Ctrl-C


class _AbandonedError(Exception):
    """Raised inside the thread, between two files."""


class Saver:
    def __init__(
        self,
        run: Path,
        settings: TrainConfig,
        beside: Beside,
        events: Events,
        say: Say,
    ) -> None:
        self.run, self.settings, self.beside = run, settings, beside
        self.events, self.say = events, say
        self.buffers: dict[str, Tensor] = {}
        self.thread: threading.Thread | None = None
        self.abandon = threading.Event()
        self.hurry = False  # the run is to end: what a next start does as well is left to it
        self.step = -1  # of the snapshot that is being written
        # set by the thread, read by the training
        self.saved: Path | None = None
        self.failed: OSError | ValueError | None = None  # the last attempt, until the next begins
        self.failures: deque[str] = deque()  # that nobody was told of yet
        self.bug: BaseException | None = None
        self.told: str | None = None  # the failure that was said last

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as they are now, on the CPU, in memory that is used again each time."""
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
        """Wait until the last copy is no longer needed; one that cannot be written is given up."""
        while self.thread is not None and self.failed is None:
            self.thread.join(0.1)
            self.look()
        self._end()

    def start(self, snapshot: Snapshot) -> None:
        """Begin to write; `ready()` came before the copy was made."""
        assert self.thread is None
        self.saved, self.failed, self.bug, self.told = None, None, None, None
        self.abandon.clear()
        self.step = snapshot.step
        self.thread = threading.Thread(
            target=self._work, args=(snapshot,), name="saver", daemon=True
        )
        self.thread.start()

    def look(self) -> None:
        """Tell what has become of the write."""
        over = self.thread is not None and not self.thread.is_alive()  # asked first
        while self.failures:
            failure = self.failures.popleft()
            if failure != self.told:
                self.told = failure
                self.events("not saved", step=self.step, reason=failure)
                self.say(
                    f"The checkpoint of step {self.step:,} could not be saved ({failure}): the "
                    f"training goes on, and it is tried again every {RETRY:g} s."
                )
        if over:
            self.thread = None
            if self.bug is not None:
                raise self.bug
            if self.saved is not None:
                self.events("saved", step=self.step, folder=self.saved.name)
                if self.told:
                    self.say(f"The checkpoint of step {self.step:,} is saved now.")

    def finish(self, stop: StopRequest) -> None:
        """Wait until the write is done, if there is one.

        Without room on the disk that is until there is some, or the run is asked to stop: then
        it raises the OSError in the end.
        """
        while self.thread is not None:
            self.hurry = self.hurry or stop.received is not None
            self.thread.join(0.1)
            self.look()
            late = stop.received is not None and time.monotonic() > stop.at + LAST_TRIES
            if self.failed is not None and late:
                failure = self.failed
                self._end()
                if self.saved is None:  # it may have come through just then
                    raise failure

    def leave(self) -> None:
        """The process is to end at once: what is half-written stays so, and counts for nothing."""
        self.abandon.set()
        if self.thread is not None:
            self.thread.join(LEAVE)

    def _end(self) -> None:
        if self.thread is not None:
            self.abandon.set()
            self.thread.join()
            self.look()

    def _work(self, snapshot: Snapshot) -> None:
        try:
            while not self._tried(snapshot):
                if self.abandon.wait(RETRY):
                    return
        except _AbandonedError:
            pass
        except BaseException as error:  # our own mistake: the training is to end with it
            self.bug = error

    def _tried(self, snapshot: Snapshot) -> bool:
        settings = self.settings
        self.failed = None
        try:
            clear_torn(self.run)
            need_room(self.run, snapshot.bytes)
            folder = write_checkpoint(self.run, snapshot, self.beside, self._still_wanted)
            if self.hurry:
                self.saved = folder
                return True
            try:
                verify(folder, from_disk=True)
            except ValueError:
                remove(folder)  # the disk did not keep what it was given
                raise
        except (OSError, ValueError) as error:
            self._fails(error)
            return False
        try:
            tidy(self.run, settings.keep, settings.keep_every, settings.keep_best)
        except OSError as error:
            self._fails(error)  # what is written counts, and one checkpoint too many is no loss
        self.saved = folder
        return True

    def _fails(self, error: OSError | ValueError) -> None:
        self.failures.append(str(error))
        self.failed = error

    def _still_wanted(self) -> None:
        if self.abandon.is_set():
            raise _AbandonedError


def need_room(run: Path, size: int) -> None:
    """Raises OSError where the disk has no room for so many bytes."""
    free = shutil.disk_usage(run / FOLDER).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: a checkpoint takes {size / 1e9:.3g} GB, and "
            f"{free / 1e9:.3g} GB are free",
            str(run / FOLDER),
        )
