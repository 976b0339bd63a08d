"""Writes checkpoints from a background thread, from a copy that training does not change.

    training   … step 500 ─ copy ─ step 501 … step 517 ─ "saved" …
    thread                   └─ write, fsync, rename, verify, remove old ones ─┘

A write that fails (a full disk, a read-only folder, an unmounted disk) does not stop training: it
is reported once, and the same copy is written again until it succeeds or is replaced by the next
one. No checkpoint is removed before its successor has been read back from the disk.
"""

import errno
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gnano.checkpoint.format import CheckpointAssets, Snapshot, write_checkpoint
from gnano.checkpoint.run_checkpoints import (
    CHECKPOINTS_DIR,
    apply_retention,
    list_checkpoints,
    remove_checkpoint,
    remove_partial,
    verify_checksums,
)
from gnano.config.train_config import TrainConfig
from gnano.utils.formatting import format_gb
from gnano.utils.stop_request import CHECKPOINT_THREAD_NAME, SignalHandler

RETRY_INTERVAL = 20.0  # seconds until a failed write is tried again
STOP_RETRY_SECONDS = 10.0  # seconds of retries after the run was requested to stop
ABORT_JOIN_SECONDS = 2.0  # seconds for the thread to finish a file after a second Ctrl-C


class _WriteCancelledError(Exception):
    """Raised in the thread, between two files."""


class AsyncCheckpointWriter:
    """Writes the checkpoints of a run; on ranks that never call `start`, it does nothing.

    `log_event` is called with the name of an event and its details by keyword.
    """

    def __init__(
        self,
        run: Path,
        settings: TrainConfig,
        assets: CheckpointAssets,
        log_event: Callable[..., None],
        notify: Callable[[str], None],
    ) -> None:
        self.run, self.settings, self.assets = run, settings, assets
        self.log_event, self.notify = log_event, notify
        self.buffers: dict[str, Tensor] = {}
        self.thread: threading.Thread | None = None
        self.cancelled = threading.Event()
        # the run ends: skip verification and retention; the next start does both
        self.is_stopping = False
        self.step = -1  # of the snapshot that is being written
        self.reported_failure: str | None = None  # the failure reported last
        # written by the thread, read by training
        self.saved_folder: Path | None = None
        self.last_error: OSError | ValueError | None = None  # of the last attempt
        self.unreported_failures: deque[str] = deque()
        self.thread_error: BaseException | None = None

    def report_damaged(self, new_path: Path, reason: str) -> None:
        """Report that a damaged checkpoint was renamed to `new_path`."""
        self.log_event("damaged", folder=new_path.name, reason=reason)
        self.notify(
            f"{reason} Training resumes from the checkpoint before it; {new_path} is kept for you "
            f"to examine or delete."
        )

    def check_disk_space(self, num_bytes: int) -> None:
        """Raise ValueError if no checkpoint of `num_bytes` fits; warn if too few fit."""
        free = shutil.disk_usage(self.run / CHECKPOINTS_DIR).free
        # the newest ones, the best, and the next, which is written before an old one is removed
        max_kept = self.settings.keep_last + self.settings.keep_best + 1
        num_still_to_write = max(max_kept - len(list_checkpoints(self.run)), 1)
        sizes = (
            f"{format_gb(free, '.3g')} are free in {self.run}, a checkpoint takes "
            f"{format_gb(num_bytes, '.3g')}"
        )
        if free < num_bytes:
            raise ValueError(f"{sizes}: free some space, or choose another folder (--out).")
        if free < num_bytes * num_still_to_write:
            self.notify(
                f"{sizes}, and {num_still_to_write} more are kept (train.keep_last): the disk will "
                f"be full."
            )

    @torch.no_grad()
    def start(self, snapshot: Snapshot) -> None:
        """Copy a snapshot to the CPU, into buffers that every save reuses, and start writing it.

        Call `wait_until_idle()` first: it ends the use of the last copy.
        """
        assert self.thread is None
        tensors = {**snapshot.weights, **snapshot.training_tensors}
        for name, tensor in tensors.items():
            if name not in self.buffers:
                # pinned: a GPU then copies at the full rate of its bus
                pinned = tensor.device.type == "cuda"
                self.buffers[name] = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            self.buffers[name].copy_(tensor, non_blocking=True)
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            torch.accelerator.synchronize()
        copied = replace(
            snapshot,
            weights={name: self.buffers[name] for name in snapshot.weights},
            training_tensors={name: self.buffers[name] for name in snapshot.training_tensors},
        )
        self.saved_folder = self.last_error = self.thread_error = self.reported_failure = None
        self.cancelled.clear()
        self.step = snapshot.step
        write = partial(self._write_with_retries, copied)
        self.thread = threading.Thread(target=write, name=CHECKPOINT_THREAD_NAME, daemon=True)
        self.thread.start()

    def poll(self, seconds: float | None = 0.0) -> None:
        """Wait for the end of the write, for at most `seconds` if given, and report its progress.

        The training thread calls this.
        """
        if self.thread is None:
            return
        self.thread.join(seconds)
        has_ended = not self.thread.is_alive()  # before reading results
        while self.unreported_failures:
            failure = self.unreported_failures.popleft()
            if failure != self.reported_failure:
                self.reported_failure = failure
                self.log_event("not saved", step=self.step, reason=failure)
                self.notify(
                    f"The checkpoint of step {self.step:,} could not be saved ({failure}): "
                    f"training continues, and the save is retried every {RETRY_INTERVAL:g} s."
                )
        if has_ended:
            self.thread = None
            if self.thread_error is not None:
                raise self.thread_error
            if self.saved_folder is not None:
                self.log_event("saved", step=self.step, folder=self.saved_folder.name)
                if self.reported_failure:
                    self.notify(f"The checkpoint of step {self.step:,} is now saved.")

    def wait_until_idle(self) -> None:
        """Wait until the last copy is no longer needed; discard it if it cannot be written."""
        while self.thread is not None and self.last_error is None:
            self.poll(0.1)
        self.cancelled.set()
        self.poll(None)

    def wait_until_saved(self, signals: SignalHandler) -> None:
        """Wait until a write in progress is done.

        A write that fails is retried until `STOP_RETRY_SECONDS` after a stop signal, and then
        raises its error.
        """
        while self.thread is not None:
            self.is_stopping = signals.should_stop()
            self.poll(0.1)
            failure = self.last_error
            is_late = time.monotonic() > signals.received_at + STOP_RETRY_SECONDS
            if failure is not None and self.is_stopping and is_late:
                self.cancelled.set()
                self.poll(None)
                if self.saved_folder is None:  # the last attempt may have succeeded meanwhile
                    raise failure

    @contextmanager
    def end_write_on_error(self) -> Iterator[None]:
        """Finish a write after an error in training; abort it when the process must end."""
        try:
            yield
        except Exception:
            self.wait_until_idle()
            raise
        except BaseException:
            if self.thread is not None:
                self.cancelled.set()  # a partial folder is not taken for a checkpoint
                self.thread.join(ABORT_JOIN_SECONDS)
            raise

    def _write_with_retries(self, snapshot: Snapshot) -> None:
        """Write until it succeeds or is cancelled; the thread runs this."""
        try:
            while True:
                self.last_error = None
                try:
                    self.saved_folder = self._write(snapshot)
                    return
                except (OSError, ValueError) as error:
                    self._record_failure(error)
                if self.cancelled.wait(RETRY_INTERVAL):
                    return
        except _WriteCancelledError:
            pass
        except BaseException as error:  # a bug: training must end with it
            self.thread_error = error

    def _write(self, snapshot: Snapshot) -> Path:
        """Write a snapshot, read it back, and remove the checkpoints that need not be kept."""
        run, settings = self.run, self.settings

        def check_cancelled() -> None:
            if self.cancelled.is_set():
                raise _WriteCancelledError

        remove_partial(run)
        tensors = [*snapshot.weights.values(), *snapshot.training_tensors.values()]
        num_bytes = sum(tensor.nbytes for tensor in tensors)
        free = shutil.disk_usage(run / CHECKPOINTS_DIR).free
        if free < num_bytes:
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)}: a checkpoint takes {format_gb(num_bytes, '.3g')}, "
                f"and {format_gb(free, '.3g')} are free",
                str(run / CHECKPOINTS_DIR),
            )
        folder = write_checkpoint(run, snapshot, self.assets, check_cancelled)
        if self.is_stopping:
            return folder
        try:
            verify_checksums(folder, from_disk=True)
        except ValueError:
            remove_checkpoint(folder)  # the data read back differs from what was written
            raise
        try:
            apply_retention(run, settings.keep_last, settings.keep_every, settings.keep_best)
        except OSError as error:  # the new one is complete; keeping an extra one is harmless
            self._record_failure(error)
        return folder

    def _record_failure(self, error: OSError | ValueError) -> None:
        self.unreported_failures.append(str(error))
        self.last_error = error
