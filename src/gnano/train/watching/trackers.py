"""Sends metrics to TensorBoard and Weights & Biases, each in a process of its own.

    step ──▶ queue ──▶ thread ──▶ pipe ──▶ process: TensorBoard's file, or W&B's server
               └─ full: dropped, and reported once

A tracker that fails, hangs or is slow costs a step no more than putting a row into a queue; a
process that hangs is killed at the end. `metrics.jsonl` has every figure anyway.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Full, Queue
from typing import Any

from gnano.utils.json_text import json_text
from gnano.utils.optional import require

PROCESS = Path(__file__).with_name("tracker_process.py")
WAITING = 4_096  # steps that may wait for a slow tracker
PATIENCE = 8.0  # seconds that all trackers together get for their last words


def check_installed(names: Sequence[str]) -> None:
    """Raise ValueError naming a tracker that is requested but not installed."""
    for name in names:
        problem = f"train.trackers asks for {name!r}, which is not installed"
        require(name, "track", problem, ", or leave it out")


class Trackers:
    """Called with the metrics of every step; never raises and never waits while training.

    `names` are "tensorboard" and "wandb"; `run` is the folder for their files; `recipe` is what W&B
    shows beside the curves; `say` gets a sentence for a person, on the training thread. Raises
    ValueError for a tracker that is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        recipe: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        check_installed(names)
        self.say = say
        opening = {"run": str(run.resolve()), "recipe": recipe, "parent": os.getpid()}
        self.trackers = [_Tracker(name, run, opening) for name in names]

    def __call__(self, figures: dict[str, Any]) -> None:
        """Pass on the metrics of a step, as they are in metrics.jsonl."""
        for tracker in self.trackers:
            tracker.hand_on(dict(figures))
        self._report_news()

    def close(self, patience: float = PATIENCE) -> None:
        """Let the trackers finish, for at most `patience` seconds in all."""
        until = time.monotonic() + patience
        for tracker in self.trackers:
            tracker.last_word(until)
        for tracker in self.trackers:
            tracker.close(until)
        self._report_news()
        self.trackers = []

    def _report_news(self) -> None:
        for tracker in self.trackers:
            while tracker.news:
                self.say(f"{tracker.name} {tracker.news.popleft()}")


class _Tracker:
    """One tracker: its queue, the thread that feeds it, the process that it runs in."""

    def __init__(self, name: str, run: Path, opening: dict[str, Any]) -> None:
        self.name, self.log = name, run / f"{name}.log"
        self.queue: Queue[dict[str, Any] | None] = Queue(WAITING)
        self.news: deque[str] = deque()  # sentences for a person
        self.process: subprocess.Popen[str] | None = None
        self.over, self.dropped = False, 0
        self.queue.put(opening)
        self.thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def hand_on(self, figures: dict[str, Any]) -> None:
        if self.over:
            return
        try:
            self.queue.put_nowait(figures)
        except Full:
            self.dropped += 1
            if self.dropped == 1:
                self.news.append("cannot keep up: it is missing steps; metrics.jsonl has them all.")

    def last_word(self, until: float) -> None:
        try:
            self.queue.put(None, timeout=max(0.0, until - time.monotonic()))
        except Full:
            self.dropped += 1

    def close(self, until: float) -> None:
        self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive():
            self.over = True  # the thread is not to report what comes now
            if self.process is not None:
                self.process.kill()
            self.news.append("did not finish in time and was left; metrics.jsonl has every step.")
        elif self.dropped:
            self.news.append(f"is missing {self.dropped:,} steps; metrics.jsonl has them all.")

    def _run(self) -> None:
        try:
            with self.log.open("a", encoding="utf-8") as log:
                # as a file, with -P: nothing in the current folder is imported
                command = [sys.executable, "-P", str(PROCESS), self.name]
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                )
            reason = self._feed(self.process)
        except Exception as error:  # no tracker may end the run
            reason = f"{type(error).__name__}: {error}"
        if reason and not self.over:
            where = f" ({self.log})" if self.log.exists() else ""
            self.news.append(f"stopped, the run goes on: {reason}{where}")
        self.over = True

    def _feed(self, process: "subprocess.Popen[str]") -> str:
        """Write the queue's rows into the process; returns what went wrong, if anything did."""
        assert process.stdin is not None and process.stdout is not None
        try:
            for line in iter(self.queue.get, None):
                process.stdin.write(json_text(line, default=str) + "\n")
                process.stdin.flush()
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, and its output tells why
        reason = process.stdout.read().strip()
        code = process.wait()
        return reason or (f"it ended with exit code {code}" if code else "")
