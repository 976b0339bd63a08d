"""Has someone asked the run to stop? Ctrl-C and SIGTERM, answered after the current step.

Alone, a second signal stops at once. A launcher passes on to its ranks what a terminal or a
cluster has sent them already, so among several only a Ctrl-C some seconds later stops at once.
"""

import signal
import time
from types import FrameType, TracebackType
from typing import Self

ECHO = 5.0  # seconds in which a launcher passes a signal on


class StopRequest:
    """While entered, the first signal is remembered; a second one stops at once.

    `launched`: by a launcher that passes signals on.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, launched: bool = False) -> None:
        self.launched = launched
        self.received: signal.Signals | None = None
        self.at = 0.0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self.signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self.at = signal.Signals(number), time.monotonic()
        elif not self.launched or (number == signal.SIGINT and time.monotonic() - self.at > ECHO):
            raise KeyboardInterrupt
