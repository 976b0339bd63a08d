"""Reads the metrics of a step from the device once they have arrived.

A GPU is given its work ahead of time; reading a loss immediately would make the host wait until it
is computed, and then the device wait for the host. So a step's metrics are copied to the host in
the background, and read when the next step has been started.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gnano.train.config import TrainConfig
from gnano.train.step import SKIPPED_SPIKE, STEP_METRICS


class AsyncMetricReader:
    """Starts after `step` steps and `seconds` of training; `late` steps may be unread."""

    def __init__(
        self,
        settings: TrainConfig,
        device: torch.device,
        step: int = 0,
        elapsed: float = 0.0,
        max_pending: int | None = None,
    ) -> None:
        self.settings, self.step = settings, step
        self.start_time = time.monotonic() - elapsed
        # a CPU has computed a step when it returns
        self.max_pending = max_pending if max_pending is not None else int(device.type == "cuda")
        self.stop_requested = False  # has any rank been asked to stop?
        # figures on the host, complete once their event is
        self.pending: deque[tuple[Tensor, torch.Event | None]] = deque()
        self.step_start_time = time.perf_counter()  # when the step that is read next began

    @property
    def elapsed_seconds(self) -> float:
        """Training so far, over all parts of the run."""
        return round(time.monotonic() - self.start_time, 3)

    def push(self, metrics: Tensor) -> None:
        """Add the metrics of the next step, which has been started."""
        arrived = None
        if metrics.device.type == "cuda":
            host = torch.empty(metrics.shape, dtype=metrics.dtype, pin_memory=True)
            metrics = host.copy_(metrics, non_blocking=True)
            arrived = torch.Event("cuda")
            arrived.record()
        self.pending.append((metrics, arrived))

    def read_rows(self, drain: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the rows of the steps that are due, oldest first; waits until they are computed."""
        settings = self.settings
        while len(self.pending) > (0 if drain else self.max_pending):
            figures, arrived = self.pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            found = dict(zip(STEP_METRICS, figures.tolist(), strict=True))
            taken = time.perf_counter() - self.step_start_time
            self.step_start_time += taken
            self.step += 1
            self.stop_requested = self.stop_requested or found["stop"] > 0
            yield {
                "step": self.step,
                "tokens": self.step * settings.tokens_per_step,
                "loss": _round_finite(found["loss"]),
                "grad_norm": _round_finite(found["grad_norm"]),
                "lr": settings.schedule.lr_at(self.step - 1, settings.steps),
                "tokens_per_s": round(settings.tokens_per_step / taken, 1),
                "seconds": self.elapsed_seconds,
                "skipped": bool(found["skipped"]),
                **({"spike": True} if found["skipped"] == SKIPPED_SPIKE else {}),
                **({"final": True} if self.step == settings.steps else {}),
            }

    def rewind(self, step: int) -> None:
        """Continue from an earlier step, dropping what is unread."""
        self.pending.clear()
        self.step = step
        self.reset_timer()

    def reset_timer(self) -> None:
        """Exclude the time until now from that of the next step."""
        self.step_start_time = time.perf_counter()


def _round_finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None  # JSON has no NaN
