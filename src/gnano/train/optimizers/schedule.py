"""Settings of the optimizer and of the learning rate: a linear warm-up, then one of three decays.

cosine  /‾‾╲__      half a cosine (Loshchilov & Hutter 2017)
wsd     /‾‾‾‾‾╲     at the peak, then straight down at the end (MiniCPM, arXiv 2404.06395)
linear  /╲___       straight down from the peak (arXiv 2310.07831)
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from gnano.utils.ranges import Range, check_field_ranges
from gnano.utils.unused import reject_unused

BELOW_ONE = Range(0, 1, exclusive_maximum=True)


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    kind: Literal["cosine", "wsd", "linear"] = "cosine"  # the way from the peak to the floor
    # learning rate at the end of warm-up
    peak: Annotated[float, Range(0, exclusive_minimum=True)] = 3e-4
    warmup: Annotated[float, Range(0)] = 0.05  # steps of rise from 0; below 1: share of all steps
    floor: Annotated[float, Range(0, 1)] = 0.1  # share of the peak that it ends on
    # wsd: share of all steps that it falls over, at the end
    decay: Annotated[float, Range(0, 1)] = 0.3

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.schedule")
        if self.kind != "wsd":
            why = f"train.schedule.kind is {self.kind!r}"
            reject_unused(self, "train.schedule.", ("decay",), why)
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(
                f"train.schedule.warmup is {self.warmup}; it must be a whole number of steps, or "
                f"less than 1, a share of all steps."
            )

    def warmup_steps(self, total_steps: int) -> int:
        """Return how many of all steps are warm-up."""
        return round(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)

    def lr_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a step from 0 to steps - 1."""
        start = self.warmup_steps(total_steps)
        if step < start:
            return self.peak * (step + 1) / start
        if self.kind == "wsd":
            start = max(start, total_steps - 1 - round(self.decay * total_steps))
        done = max(step - start, 0) / max(total_steps - 1 - start, 1)
        height = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.peak * (self.floor + (1 - self.floor) * height)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the layers
    beta1: Annotated[float, BELOW_ONE] = 0.9  # AdamW: memory of the gradient's mean
    beta2: Annotated[float, BELOW_ONE] = 0.95  # AdamW: memory of its square
    eps: Annotated[float, Range(0, 1, exclusive_minimum=True)] = (
        1e-8  # AdamW: added to the root of the square
    )
    # shrink of the matrices a step, times the learning rate
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.1
    # learning rate of the embedding, in multiples of the schedule's
    embedding_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = 1.0
    head_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = (
        1.0  # the same for the head
    )
    momentum: Annotated[float, BELOW_ONE] = 0.95  # Muon: memory of the gradient's mean
    # Muon: iterations towards the nearest orthogonal matrix
    ns_steps: Annotated[int, Range(1, 8)] = 5

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.optimizer")
        if self.kind != "muon":
            names, why = ("momentum", "polar_steps"), f"train.optimizer.kind is {self.kind!r}"
            reject_unused(self, "train.optimizer.", names, why)
