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
from gnano.train.step import FIGURES, SPIKE


class Readings:
    """Starts after `step` steps and `seconds` of training; `late` steps may be unread."""

    def __init__(
        self,
        settings: TrainConfig,
        device: torch.device,
        step: int = 0,
        seconds: float = 0.0,
        late: int | None = None,
    ) -> None:
        self.settings, self.step = settings, step
        self.started = time.monotonic() - seconds
        # a CPU has computed a step when it returns
        self.late = late if late is not None else int(device.type == "cuda")
        self.stopping = False  # has any rank been asked to stop?
        # figures on the host, complete once their event is
        self.pending: deque[tuple[Tensor, torch.Event | None]] = deque()
        self.since = time.perf_counter()  # when the step that is read next began

    @property
    def seconds(self) -> float:
        """Training so far, over all parts of the run."""
        return round(time.monotonic() - self.started, 3)

    def put(self, figures: Tensor) -> None:
        """Add the metrics of the next step, which has been started."""
        arrived = None
        if figures.device.type == "cuda":
            host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            figures = host.copy_(figures, non_blocking=True)
            arrived = torch.Event("cuda")
            arrived.record()
        self.pending.append((figures, arrived))

    def take(self, all_of_them: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the rows of the steps that are due, oldest first; waits until they are computed."""
        settings = self.settings
        while len(self.pending) > (0 if all_of_them else self.late):
            figures, arrived = self.pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            found = dict(zip(FIGURES, figures.tolist(), strict=True))
            taken = time.perf_counter() - self.since
            self.since += taken
            self.step += 1
            self.stopping = self.stopping or found["stop"] > 0
            yield {
                "step": self.step,
                "tokens": self.step * settings.tokens_per_step,
                "loss": _rounded(found["loss"]),
                "grad_norm": _rounded(found["grad_norm"]),
                "lr": settings.schedule(self.step - 1, settings.steps),
                "tokens_per_s": round(settings.tokens_per_step / taken, 1),
                "seconds": self.seconds,
                "skipped": bool(found["skipped"]),
                **({"spike": True} if found["skipped"] == SPIKE else {}),
                **({"final": True} if self.step == settings.steps else {}),
            }

    def restart(self, step: int) -> None:
        """Continue from an earlier step, dropping what is unread."""
        self.pending.clear()
        self.step = step
        self.resume()

    def resume(self) -> None:
        """Exclude the time until now from that of the next step."""
        self.since = time.perf_counter()


def _rounded(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None  # JSON has no NaN
