"""Signals that stop a run after its current step: Ctrl-C, SIGTERM, SIGHUP and SIGUSR1.

A closed terminal sends SIGHUP; under `nohup` it stays ignored. Slurm can send SIGUSR1 before a
job's time limit. In a single process, a second signal stops immediately. A launcher such as
torchrun forwards to its ranks the signals that the terminal or cluster has already sent them, so
under a launcher only a Ctrl-C at least 5 s later stops immediately.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar, Self

LAUNCHER_ECHO_SECONDS = 5.0  # seconds within which a launcher forwards a signal
# while a thread of these names runs, cli/__init__.py exits without unwinding
CHECKPOINT_THREAD_NAME = "checkpoint-writer"
TOKENIZER_THREAD_NAME = "tokenizer-training"


class StopRequestedError(Exception):
    """Long work was interrupted because the run was requested to stop."""


class ImmediateExit(SystemExit):
    """Ends a process that received a signal before there was anything to lose."""


@dataclass
class SignalHandler:
    """Records the first signal; a second one stops immediately."""

    signals: ClassVar = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

    has_launcher: bool = False  # which forwards signals
    received_signal: signal.Signals | None = None
    received_at: float = 0.0
    exits_immediately: bool = False  # nothing would be lost: the first signal ends the process

    @classmethod
    @contextmanager
    def listen(cls, has_launcher: bool = False) -> Iterator[Self]:
        """Yield a handler that receives the signals until the block ends."""
        handler = cls(has_launcher)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        numbers = [n for n in cls.signals if n != signal.SIGHUP or not ignored]
        previous = {number: signal.signal(number, handler._on_signal) for number in numbers}
        try:
            yield handler
        finally:
            for number, before in previous.items():
                signal.signal(number, before)

    def should_stop(self) -> bool:
        """Return whether a signal was received."""
        return self.received_signal is not None

    @contextmanager
    def exit_immediately(self, enabled: bool, notify: Callable[[str], None]) -> Iterator[None]:
        """Let a signal end the block immediately, if enabled: it has nothing to lose."""
        self.exits_immediately = enabled
        try:
            yield
        except ImmediateExit:
            notify(
                "Stopped before the first step: nothing is lost, and the same command starts it."
            )
            raise
        finally:
            self.exits_immediately = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received_signal is None:
            self.received_signal, self.received_at = signal.Signals(number), time.monotonic()
            if self.exits_immediately:
                raise ImmediateExit(128 + number)
        elif not self.has_launcher or (
            number == signal.SIGINT and time.monotonic() - self.received_at > LAUNCHER_ECHO_SECONDS
        ):
            raise KeyboardInterrupt
