"""Sends metrics to TensorBoard and Weights & Biases, each in its own process.

    step ──▶ queue ──▶ thread, pipe ──▶ process: TensorBoard's file, or W&B's server
               └─ full: dropped, and reported once

A tracker that fails, hangs or is slow costs a step no more than an entry in a queue; a process
that hangs is killed at the end. `metrics.jsonl` has all the metrics in any case.

The process runs this file as a script, which imports nothing of gnano:

    python trackers.py tensorboard|wandb

The first line of its input holds the run's folder and its recipe; each further one is a step. On an
error, one sentence goes to standard output and the process ends; everything that a library prints
goes to standard error. The end of the input is the end of the run.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

MAX_PENDING_ROWS = 4_096  # steps that may wait for a slow tracker
CLOSE_TIMEOUT = 8.0  # seconds that all trackers together get to finish
SHUTDOWN_GRACE = 30.0  # seconds to finish in after the run was killed


def check_trackers_installed(names: Sequence[str]) -> None:
    """Raise ValueError naming a requested tracker that is not installed."""
    from gnano.utils.platform_support import require

    for name in names:
        problem = f"train.trackers names {name!r}, which is not installed"
        require(name, "track", problem, ", or remove it from train.trackers")


class Trackers:
    """The trackers of a run, which are installed; logging never raises an error and never waits.

    `names` are "tensorboard" and "wandb"; `run` is the folder for their files; W&B shows `recipe`
    with the curves; `notify` gets messages for the user, on the training thread.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        recipe: dict[str, Any],
        notify: Callable[[str], None],
    ) -> None:
        header = {"run": str(run.resolve()), "recipe": recipe, "parent": os.getpid()}
        self.trackers = [_TrackerProcess(name, run, header, notify) for name in names]

    def log(self, metrics: dict[str, Any]) -> None:
        """Pass on the metrics of a step, as they are in metrics.jsonl."""
        for tracker in self.trackers:
            tracker.send(metrics)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Let the trackers finish, for at most `timeout` seconds in all."""
        deadline = time.monotonic() + timeout
        for tracker in self.trackers:
            tracker.rows.put(b"")
        while [t for t in self.trackers if not t.has_ended()] and time.monotonic() < deadline:
            time.sleep(0.02)
        for tracker in self.trackers:
            tracker.close()
        self.trackers = []


class _TrackerProcess:
    """A tracker's process, and a thread that passes it the rows as fast as it reads them."""

    def __init__(
        self, name: str, run: Path, header: dict[str, Any], notify: Callable[[str], None]
    ) -> None:
        self.name, self.log_path, self.notify = name, run / f"{name}.log", notify
        self.rows: SimpleQueue[bytes] = SimpleQueue()  # an empty one ends it
        self.num_dropped = 0
        self.process: subprocess.Popen[bytes] | None = None  # None once it has ended
        # as a file, with -P: nothing in the current folder is imported
        command = [sys.executable, "-P", __file__, name]
        pipe = subprocess.PIPE
        try:
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log)
        except OSError as error:
            self._report_end(f"{type(error).__name__}: {error}")
        else:
            assert self.process.stdin is not None
            write = partial(self._write_rows, self.process.stdin)
            threading.Thread(target=write, name=f"{name}-rows", daemon=True).start()
            self.send(header)

    def send(self, row: dict[str, Any]) -> None:
        """Queue a row, unless the process is too far behind."""
        from gnano.utils.files import dump_json

        if self.has_ended():
            return
        if self.rows.qsize() < MAX_PENDING_ROWS:
            self.rows.put(dump_json(row, default=str).encode() + b"\n")
        else:
            self.num_dropped += 1
            if self.num_dropped == 1:
                self.notify(
                    f"{self.name} cannot keep up and misses steps; metrics.jsonl has them all."
                )

    def _write_rows(self, stdin: IO[bytes]) -> None:
        with suppress(OSError), stdin:  # the process has ended
            while row := self.rows.get():
                stdin.write(row)
                stdin.flush()

    def close(self) -> None:
        """Kill a process that has not finished, and report missing steps."""
        if self.process is not None:
            self.process.kill()
            self.notify(
                f"{self.name} did not finish in time and was ended; metrics.jsonl has every step."
            )
        elif self.num_dropped:
            self.notify(
                f"{self.name} misses {self.num_dropped:,} steps; metrics.jsonl has them all."
            )

    def has_ended(self) -> bool:
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
        self.notify(f"{self.name} stopped, training continues: {reason}{where}")


def flatten_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a step by curve name: `loss`, `heldout/web`, `tasks/piqa/acc`."""
    heldout = metrics.get("heldout") or {}
    groups = {"heldout": {**heldout.get("sources", {}), **heldout}}
    groups |= {f"tasks/{task}": results for task, results in metrics.get("tasks", {}).items()}
    flat = {key: value for key, value in metrics.items() if key != "step"}
    for group, values in groups.items():
        flat |= {f"{group}/{name}": value for name, value in values.items()}
    return {
        name: float(value)
        for name, value in flat.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def run_tensorboard(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Write event files to the run's folder; repeated steps of a killed run appear once."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(run / "tensorboard"), flush_secs=5)
    first = True
    for row in rows:
        step = row["step"]
        if first:  # a reader discards what it has from this step on
            start = SessionLog(status=SessionLog.START)
            writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
            first = False
        scalars = flatten_scalars(row).items()
        values = [Summary.Value(tag=name, simple_value=number) for name, number in scalars]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def run_wandb(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Log to a W&B run that resumes when the run does: its id is stored in `wandb-id`.

    W&B ignores steps that it already has; after a kill they are repeated with the same values.
    """
    import wandb

    id_file = run / "wandb-id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4) + "\n", "utf-8")
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "auto-g-nano"),
        name=run.name,
        id=id_file.read_text("utf-8").strip(),
        resume="allow",
        dir=str(run),
        config=recipe,
        allow_val_change=True,
        settings=wandb.Settings(console="off"),
    ) as wandb_run:
        for row in rows:
            wandb_run.log(flatten_scalars(row), step=row["step"])


def run_tracker(name: str) -> None:
    """Read the header and the rows from standard input, and pass them to the tracker."""
    # Ctrl-C, SIGTERM and SIGHUP reach all processes of the group; this one ends with its input
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        # a line without an end was interrupted by a kill
        lines = (json.loads(line) for line in sys.stdin if line.endswith("\n"))
        header = next(lines)
        threading.Thread(target=_exit_after_parent, args=(header["parent"],), daemon=True).start()
        track = {"tensorboard": run_tensorboard, "wandb": run_wandb}[name]
        track(Path(header["run"]), header["recipe"], lines)
    except BaseException as error:
        sentence = str(error).strip().split("\n")[0]
        report.write(f"{type(error).__name__}: {sentence}\n")
        report.flush()
        os._exit(1)  # not a normal exit, in which a library may hang too


def _exit_after_parent(parent_pid: int) -> None:
    """End this process `SHUTDOWN_GRACE` after the one that trains, even if a library hangs."""
    while os.getppid() == parent_pid:
        time.sleep(1)
    time.sleep(SHUTDOWN_GRACE)
    os._exit(1)


if __name__ == "__main__":
    run_tracker(sys.argv[1])
