"""Signals that stop a run after its step: Ctrl-C, SIGTERM, SIGHUP and SIGUSR1.

SIGHUP is sent when a terminal closes; under `nohup` it stays ignored. SIGUSR1 is what a Slurm job
asks for, to be told of its time limit. Alone, a second signal stops at once. A launcher passes on
to its ranks what a terminal or a cluster has sent them already, so among several only a Ctrl-C
some seconds later stops at once.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

LAUNCHER_ECHO_SECONDS = 5.0  # seconds in which a launcher passes a signal on


class StopRequestedError(Exception):
    """What takes long was given up half-way, because the run was asked to stop."""


class ImmediateExit(SystemExit):
    """Ends a process that was asked to stop before it had done anything."""


class SignalHandler:
    """While entered, the first signal is remembered; a second one stops at once.

    `launched`: by a launcher that passes signals on.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, has_launcher: bool = False) -> None:
        self.has_launcher = has_launcher
        self.received_signal: signal.Signals | None = None
        self.received_at = 0.0
        self.exits_immediately = (
            False  # set while nothing would be lost: the first signal ends it as well
        )

    def should_stop(self) -> bool:
        return self.received_signal is not None

    @contextmanager
    def exit_immediately(self, enabled: bool, notify: Callable[[str], None]) -> Iterator[None]:
        """Around what may take minutes and has nothing to lose: a signal then ends it, if `now`."""
        self.exits_immediately = enabled
        try:
            yield
        except ImmediateExit:
            notify(
                "Stopped before the first step: nothing is lost, and the same command begins it."
            )
            raise
        finally:
            self.exits_immediately = False

    def __enter__(self) -> Self:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        numbers = [n for n in self.signals if n != signal.SIGHUP or not ignored]
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received_signal is None:
            self.received_signal, self.received_at = signal.Signals(number), time.monotonic()
            if self.exits_immediately:
                raise ImmediateExit(128 + number)
        elif not self.has_launcher or (
            number == signal.SIGINT and time.monotonic() - self.received_at > LAUNCHER_ECHO_SECONDS
        ):
            raise KeyboardInterrupt
