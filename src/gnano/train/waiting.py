"""Training while the data is still being prepared: it waits, and says for what."""

import time
from collections.abc import Callable
from typing import Protocol

from gnano.train.stopping import StopRequest

POLL = 1.0  # seconds between two looks


class Say(Protocol):
    """Hears a fact about the run, or what it waits for, again and again until it is there."""

    def __call__(self, text: str, waiting: bool = False) -> None: ...


def wait_for(lacking: Callable[[], str | None], stop: StopRequest, say: Say) -> None:
    """Return when nothing is lacking any more, or someone has asked the run to stop."""
    while stop.received is None and (missing := lacking()):
        say(missing, waiting=True)
        time.sleep(POLL)
