"""How did the step go? Its figures, read from the device when they have arrived.

A GPU is given its work ahead of time; to ask for a loss at once would make the host wait until
it is computed and the device then wait for the host. So a step's figures are copied to the
host in the background and read when the next step has been given out.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnano.train.config import TrainConfig
from gnano.train.step import FIGURES, SPIKE


class _Pending(NamedTuple):
    figures: Tensor  # on the host, complete once `arrived`
    arrived: torch.Event | None


class Readings:
    """From a number of steps on, after `seconds` of training; `late` of them may be unread."""

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
        self.pending: deque[_Pending] = deque()
        self.since = time.perf_counter()  # when the step that is read next began

    @property
    def seconds(self) -> float:
        """Training so far, over all parts of the run."""
        return round(time.monotonic() - self.started, 3)

    def put(self, figures: Tensor) -> None:
        """The figures of the next step, which was given out."""
        arrived = None
        if figures.device.type == "cuda":
            host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            figures = host.copy_(figures, non_blocking=True)
            arrived = torch.Event("cuda")
            arrived.record()
        self.pending.append(_Pending(figures, arrived))

    def take(self, all_of_them: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of the steps that are due, oldest first; waits until they are computed."""
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
        """The run goes on from an earlier step: what is unread is of no interest."""
        self.pending.clear()
        self.step = step
        self.resume()

    def resume(self) -> None:
        """Training goes on after something else, whose time is not the next step's."""
        self.since = time.perf_counter()


def _rounded(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None  # JSON has no NaN
