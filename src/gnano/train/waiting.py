"""Training while the data is still being prepared: it waits, and says for what."""

import math
import time
from collections.abc import Callable
from typing import Protocol

from gnano.train.ranks.world import World
from gnano.train.stopping import StopRequest

POLL = 1.0  # seconds between two looks


class Say(Protocol):
    """Hears a fact about the run, or what it waits for, again and again until it is there."""

    def __call__(self, text: str, waiting: bool = False) -> None: ...


class Waiting:
    """All ranks wait together, or none does: a step is begun by everyone or by no one."""

    def __init__(self, world: World, stop: StopRequest, say: Say, growing: bool) -> None:
        self.world, self.stop, self.say = world, stop, say
        # known from the start to be all there, the data needs no word between the ranks
        self.growing = bool(world.most(growing)[0])

    def for_(self, lacking: Callable[[], str | None]) -> bool:
        """Wait until nothing is lacking on any rank; False where the run is to stop instead."""
        if self.growing:  # the preparation may take days
            self.world.doing("waiting for data that is being prepared", math.inf)
        while self.growing:
            missing = lacking()
            someone_lacks, stopping = self.world.most(missing is not None, self.stop.requested())
            if stopping:
                return False
            if not someone_lacks:
                return True
            self.say(missing or "waiting for another rank's data", waiting=True)
            time.sleep(POLL)
        # several ranks agree on it in the figures of a step
        return self.world.size > 1 or not self.stop.requested()
