"""Who hears of a step? The log of the run first, then who watches it, then its trackers.

`metrics.jsonl` has one JSON object a line and is only ever appended to. After a kill the steps
since the last checkpoint are done again and logged again, with the same figures; a reader takes
the later line of a step, adds to it one without a loss, and skips a torn one.

Reads the metrics of a step from the device once they have arrived.

A GPU is given its work ahead of time; reading a loss immediately would make the host wait until it
is computed, and then the device wait for the host. So a step's metrics are copied to the host in
the background, and read when the next step has been started.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gnano.config.recipe import Recipe, flatten_recipe
from gnano.config.train_config import TrainConfig
from gnano.model.gpu_specs import compute_mfu
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import estimate_memory
from gnano.train.logging.trackers import Trackers
from gnano.train.run_dir import METRICS_FILE as NAME
from gnano.train.train_step import SKIPPED_SPIKE, STEP_METRICS
from gnano.utils.jsonl_log import JsonLinesWriter
from gnano.utils.platform_support import peak_resident_bytes

MetricsCallback = Callable[
    [dict[str, Any]], None
]  # sees the figures of every step, and `steps`, of all


class MetricsLogger:
    """Written by the first rank alone; the others' is empty."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: DistContext,
        on_metrics: MetricsCallback,
        notify: Notify,
    ) -> None:
        self.recipe, self.world, self.on_metrics, self.notify = recipe, world, on_metrics, notify
        self.gpu_name = (
            torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
        )
        self.writer = JsonLinesWriter(run / NAME) if world.is_main else None
        self.has_warned = False
        names = recipe.train.trackers if world.is_main else ()
        self.trackers = Trackers(names, run, flatten_recipe(recipe), notify)

    def log(self, row: dict[str, Any]) -> None:
        """The figures of a step, to all; they gain what this device makes of them."""
        if self.writer is None:
            return
        row["memory_gb"] = round(peak_memory_bytes(self.world.device) / 1e9, 3)
        if self.gpu_name is not None:
            ranks, precision = self.world.world_size, self.recipe.train.precision
            row["mfu"] = compute_mfu(
                row["tokens_per_s"], self.recipe.model, ranks, self.gpu_name, precision
            )
        self._append(**row)
        self.on_metrics({**row, "steps": self.recipe.train.steps})
        self.trackers.log(row)

    def log_update(self, step: int, **values: Any) -> None:
        """What is learned of a step only after it was written."""
        self._append(step=step, **values)

    def _append(self, **values: Any) -> None:
        if self.writer is None:
            return
        written = self.writer.write(**values)
        if not written and not self.has_warned:
            self.notify(
                f"Lines of {NAME} wait until they can be written ({self.writer.last_error})."
            )
        self.has_warned = not written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.trackers.close()
        if self.writer is None:
            return
        if lost := self.writer.close():
            self.notify(
                f"{lost:,} lines of {NAME} could not be written ({self.writer.last_error})."
            )
        if self.gpu_name is not None and error is None:
            predicted = estimate_memory(self.recipe.model, self.recipe.train, self.world.world_size)
            self.notify(
                f"memory: {peak_memory_bytes(self.world.device) / 1e9:.1f} GB at most, "
                f"{predicted.allocated_bytes / 1e9:.1f} predicted"
            )


def peak_memory_bytes(device: torch.device) -> int:
    """Bytes: the most that PyTorch held on a GPU, or that the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


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
