"""How large is this step? A linear warm-up, then one of three ways down to a floor.

cosine  /‾‾╲__      half a cosine (Loshchilov & Hutter 2017)
wsd     /‾‾‾‾‾╲     at the peak, then straight down at the end (MiniCPM, arXiv 2404.06395)
linear  /╲___       straight down from the peak (arXiv 2310.07831)
"""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Schedule:
    kind: Literal["cosine", "wsd", "linear"] = "cosine"  # the way from the peak to the floor
    peak: float = 3e-4  # learning rate at the end of warm-up
    warmup: int = 1_000  # steps of linear rise from 0
    floor: float = 0.1  # share of the peak that it ends on
    decay: float = 0.3  # wsd: share of all steps that it falls over, at the end

    def __post_init__(self) -> None:
        if not self.peak > 0:
            raise ValueError(f"train.schedule.peak is {self.peak}; it must be more than 0.")
        if self.warmup < 0:
            raise ValueError(f"train.schedule.warmup is {self.warmup}; it must be 0 or more.")
        for name in ("floor", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"train.schedule.{name} is {getattr(self, name)}; it is a share, in [0, 1]."
                )

    def __call__(self, step: int, steps: int) -> float:
        """Learning rate of step 0 … steps-1."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        start = self.warmup
        if self.kind == "wsd":
            start = max(start, steps - 1 - round(self.decay * steps))
        done = max(step - start, 0) / max(steps - 1 - start, 1)
        height = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.peak * (self.floor + (1 - self.floor) * height)
