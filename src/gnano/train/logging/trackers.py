"""Sends metrics to TensorBoard and Weights & Biases, each in its own process.

    step ──▶ rows ──▶ pipe, non-blocking ──▶ process: TensorBoard's file, or W&B's server
              └─ full: dropped, and reported once

A tracker that fails, hangs or is slow costs a step no more than a non-blocking write; a process
that hangs is killed at the end. `metrics.jsonl` has all the metrics in any case.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnano.utils.files import dump_json
from gnano.utils.platform_support import require

PROCESS_SCRIPT = Path(__file__).with_name("tracker_process.py")
MAX_PENDING_ROWS = 4_096  # steps that may wait for a slow tracker
CLOSE_TIMEOUT = 8.0  # seconds that all trackers together get to finish


def check_trackers_installed(names: Sequence[str]) -> None:
    """Raise ValueError naming a requested tracker that is not installed."""
    for name in names:
        problem = f"train.trackers names {name!r}, which is not installed"
        require(name, "track", problem, ", or remove it from train.trackers")


class Trackers:
    """The trackers of a run; logging never raises an error and never waits.

    `names` are "tensorboard" and "wandb"; `run` is the folder for their files; W&B shows `recipe`
    with the curves; `notify` gets messages for the user, on the training thread. Raises ValueError
    for a tracker that is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        recipe: dict[str, Any],
        notify: Callable[[str], None],
    ) -> None:
        check_trackers_installed(names)
        header = {"run": str(run.resolve()), "recipe": recipe, "parent": os.getpid()}
        self.trackers = [_TrackerProcess(name, run, header, notify) for name in names]

    def log(self, metrics: dict[str, Any]) -> None:
        """Pass on the metrics of a step, as they are in metrics.jsonl."""
        for tracker in self.trackers:
            tracker.send(metrics)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Let the trackers finish, for at most `timeout` seconds in all."""
        deadline = time.monotonic() + timeout
        while [t for t in self.trackers if not t.finish()] and time.monotonic() < deadline:
            time.sleep(0.02)
        for tracker in self.trackers:
            tracker.close()
        self.trackers = []


class _TrackerProcess:
    """A tracker's process, and the rows that its pipe has no space for yet."""

    def __init__(
        self, name: str, run: Path, header: dict[str, Any], notify: Callable[[str], None]
    ) -> None:
        self.name, self.log_path, self.notify = name, run / f"{name}.log", notify
        self.pending: deque[bytes] = deque()
        self.num_dropped = 0
        self.process: subprocess.Popen[bytes] | None = None  # None once it has ended
        # as a file, with -P: nothing in the current folder is imported
        command = [sys.executable, "-P", str(PROCESS_SCRIPT), name]
        pipe = subprocess.PIPE
        try:
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(command, 0, stdin=pipe, stdout=pipe, stderr=log)
        except OSError as error:
            self._report_end(f"{type(error).__name__}: {error}")
        else:
            assert self.process.stdin is not None
            os.set_blocking(self.process.stdin.fileno(), False)
            self.send(header)

    def send(self, row: dict[str, Any]) -> None:
        """Write a row if the pipe has space, else keep it."""
        if self._has_ended():
            return
        if len(self.pending) < MAX_PENDING_ROWS:
            self.pending.append(dump_json(row, default=str).encode() + b"\n")
        else:
            self.num_dropped += 1
            if self.num_dropped == 1:
                self._report("cannot keep up and misses steps; metrics.jsonl has them all.")
        self.flush()

    def flush(self) -> None:
        """Write as many rows as the pipe takes."""
        assert self.process is not None and self.process.stdin is not None
        try:
            while self.pending:
                row = self.pending[0]
                written = os.write(self.process.stdin.fileno(), row)
                self.pending.popleft()
                if written < len(row):
                    self.pending.appendleft(row[written:])
        except (BlockingIOError, BrokenPipeError):
            pass  # the pipe is full, or the process is about to end

    def finish(self) -> bool:
        """Write what is left, then close the pipe; return whether the process has ended."""
        if not self._has_ended():
            assert self.process is not None and self.process.stdin is not None
            if not self.process.stdin.closed:
                self.flush()
                if not self.pending:
                    self.process.stdin.close()
        return self.process is None

    def close(self) -> None:
        """Kill a process that has not finished, and report missing steps."""
        if self.process is not None:
            self.process.kill()
            self._report("did not finish in time and was ended; metrics.jsonl has every step.")
        elif self.num_dropped:
            self._report(f"misses {self.num_dropped:,} steps; metrics.jsonl has them all.")

    def _has_ended(self) -> bool:
        """Return whether the process has ended, and report why it failed if it did."""
        if self.process is not None and (code := self.process.poll()) is not None:
            assert self.process.stdout is not None
            reason = self.process.stdout.read().decode(errors="replace").strip()
            self.process = None
            if reason or code:
                self._report_end(reason or f"it ended with exit code {code}")
        return self.process is None

    def _report_end(self, reason: str) -> None:
        where = f" ({self.log_path})" if self.log_path.exists() else ""
        self._report(f"stopped, training continues: {reason}{where}")

    def _report(self, text: str) -> None:
        self.notify(f"{self.name} {text}")
