"""Training while the data is still being prepared: it waits, and says for what."""

import math
import time
from collections.abc import Callable
from typing import Protocol

from gnano.train.ranks.world import DistContext
from gnano.train.stopping import SignalHandler

POLL_INTERVAL = 1.0  # seconds between two looks


class Notify(Protocol):
    """Hears a fact about the run, or what it waits for, again and again until it is there."""

    def __call__(self, text: str, waiting: bool = False) -> None: ...


class DataWaiter:
    """All ranks wait together, or none does: a step is begun by everyone or by no one."""

    def __init__(
        self, world: DistContext, signals: SignalHandler, notify: Notify, is_growing: bool
    ) -> None:
        self.world, self.signals, self.notify = world, signals, notify
        # known from the start to be all there, the data needs no word between the ranks
        self.is_growing = bool(world.all_reduce_max(is_growing)[0])

    def wait_until_available(self, find_missing: Callable[[], str | None]) -> bool:
        """Wait until nothing is lacking on any rank; False where the run is to stop instead."""
        if self.is_growing:  # the preparation may take days
            self.world.set_phase("waiting for data that is being prepared", math.inf)
        while self.is_growing:
            missing = find_missing()
            someone_lacks, stopping = self.world.all_reduce_max(
                missing is not None, self.signals.should_stop()
            )
            if stopping:
                return False
            if not someone_lacks:
                return True
            self.notify(missing or "waiting for another rank's data", waiting=True)
            time.sleep(POLL_INTERVAL)
        # several ranks agree on it in the figures of a step
        return self.world.world_size > 1 or not self.signals.should_stop()
