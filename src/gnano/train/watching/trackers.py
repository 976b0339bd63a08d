"""Who else sees the figures? TensorBoard and Weights & Biases, each in a process of its own.

    step ──▶ queue ──▶ thread ──▶ pipe ──▶ process: TensorBoard's file, or W&B's server
               └─ full: dropped, and said once

Their loss is not the run's loss. What fails, hangs or is slow there costs a step nothing but
putting a line into a queue; a process that hangs is killed at the end, whatever its library
would still wait for. `metrics.jsonl` has every figure anyway.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Full, Queue, SimpleQueue
from types import TracebackType
from typing import IO, Any, Self

from gnano.utils.json_text import json_text

PROCESS = Path(__file__).with_name("tracker_process.py")
WAITING = 4_096  # steps that may wait for a slow tracker
PATIENCE = 8.0  # seconds that all trackers together get for their last words


def check_installed(names: Sequence[str]) -> None:
    """Raises ValueError naming a tracker that is asked for but not installed."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # no origin: only a folder of that name
            raise ValueError(
                f"train.trackers asks for {name!r}, which is not installed: "
                f"pip install 'auto-g-nano[track]', or leave it out."
            )


class Trackers:
    """Called with the figures of every step; never raises and never waits while training.

    `names` are "tensorboard" and "wandb"; `run` is the run's folder, where they keep their
    files; `recipe` is shown by W&B beside the curves; `say` gets one sentence for what a person
    should know, on the thread that trains. Raises ValueError for a tracker that is not installed:
    at the start nothing is lost by it.
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
        """Hand on the figures of a step, as they go into metrics.jsonl."""
        for tracker in self.trackers:
            tracker.hand_on(dict(figures))
        self._say_news()

    def close(self, patience: float = PATIENCE) -> None:
        """Let them finish, for so many seconds at most in all."""
        until = time.monotonic() + patience
        for tracker in self.trackers:
            tracker.last_word(until)
        for tracker in self.trackers:
            tracker.close(until)
        self._say_news()
        self.trackers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _say_news(self) -> None:
        for tracker in self.trackers:
            while True:
                try:
                    self.say(f"{tracker.name} {tracker.news.get_nowait()}")
                except Empty:
                    break


class _Tracker:
    """One tracker: the queue before it, the thread that feeds it, the process it lives in."""

    def __init__(self, name: str, run: Path, opening: dict[str, Any]) -> None:
        self.name, self.log = name, run / f"{name}.log"
        self.queue: Queue[dict[str, Any] | None] = Queue(WAITING)
        self.news: SimpleQueue[str] = SimpleQueue()
        self.process: subprocess.Popen[str] | None = None
        self.over, self.dropped = False, 0
        self.queue.put(opening)
        self.thread = threading.Thread(target=self._live, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def hand_on(self, figures: dict[str, Any]) -> None:
        if self.over:
            return
        try:
            self.queue.put_nowait(figures)
        except Full:
            self.dropped += 1
            if self.dropped == 1:
                self.news.put("cannot keep up: it is missing steps; metrics.jsonl has them all.")

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
            self.news.put("did not finish in time and was left; metrics.jsonl has every step.")
        elif self.dropped:
            self.news.put(f"is missing {self.dropped:,} steps; metrics.jsonl has them all.")

    def _live(self) -> None:
        try:
            with self._log() as log:
                # as a file, with -P: nothing that lies about where the run was started is imported
                command = [sys.executable, "-P", str(PROCESS), self.name]
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                )
            reason = self._feed(self.process)
        except Exception as error:  # whatever it is, it is not the run's loss
            reason = f"{type(error).__name__}: {error}"
        if reason and not self.over:
            where = f" ({self.log})" if self.log.exists() else ""
            self.news.put(f"stopped, the run goes on: {reason}{where}")
        self.over = True

    def _feed(self, process: "subprocess.Popen[str]") -> str:
        """Write what comes into the process; returns what went wrong, if anything did."""
        assert process.stdin is not None and process.stdout is not None
        try:
            for line in iter(self.queue.get, None):
                process.stdin.write(json_text(line, default=str) + "\n")
                process.stdin.flush()
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, and what it wrote says why
        reason = process.stdout.read().strip()
        code = process.wait()
        return reason or (f"it ended with exit code {code}" if code else "")

    def _log(self) -> IO[Any]:
        """Where the process' own output goes; nowhere if the folder takes no file."""
        try:
            return self.log.open("a", encoding="utf-8")
        except OSError:
            return Path(os.devnull).open("a", encoding="utf-8")
