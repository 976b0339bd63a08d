"""How large is this step? Linear warm-up, then half a cosine down to a floor."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    peak: float = 3e-4  # learning rate at the end of warm-up
    warmup: int = 1_000  # steps of linear rise from 0
    floor: float = 0.1  # share of the peak that the cosine ends on

    def __post_init__(self) -> None:
        if not self.peak > 0:
            raise ValueError(f"train.schedule.peak is {self.peak}; it must be more than 0.")
        if self.warmup < 0:
            raise ValueError(f"train.schedule.warmup is {self.warmup}; it must be 0 or more.")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"train.schedule.floor is {self.floor}; it is a share, in [0, 1].")

    def __call__(self, step: int, steps: int) -> float:
        """Learning rate of step 0 … steps-1."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(steps - 1 - self.warmup, 1)
        share = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
        return self.peak * share
