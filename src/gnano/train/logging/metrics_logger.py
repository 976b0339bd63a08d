"""Logs the metrics of every step: to metrics.jsonl, then to a callback, then to the trackers.

`metrics.jsonl` has one JSON object per line and is append-only. After a kill, the steps since the
last checkpoint are repeated and logged again, with the same values; a reader uses the later line of
a step, adds a line without a loss to it, and skips a torn one (`utils/jsonl_log.py`).

A GPU gets its work ahead of time; reading a loss immediately would make the host wait until it is
computed, and then the device wait for the host. `AsyncMetricReader` copies a step's metrics to the
host in the background, and reads them when the next step has been started.
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
from gnano.model.flops import compute_mfu
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import estimate_memory
from gnano.train.logging.trackers import Trackers
from gnano.train.run_dir import METRICS_FILE
from gnano.train.train_step import SKIPPED_SPIKE, STEP_METRICS
from gnano.utils.jsonl_log import JsonLinesWriter
from gnano.utils.platform_support import peak_resident_bytes

MetricsCallback = Callable[[dict[str, Any]], None]  # gets each row, and `steps`, their number


class MetricsLogger:
    """Writes metrics.jsonl on the main rank; does nothing on the other ranks."""

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
        self.writer = JsonLinesWriter(run / METRICS_FILE) if world.is_main else None
        self.has_warned = False
        names = recipe.train.trackers if world.is_main else ()
        self.trackers = Trackers(names, run, flatten_recipe(recipe), notify)

    def log(self, row: dict[str, Any]) -> None:
        """Log the metrics of a step everywhere, with the memory and MFU of this device added."""
        if self.writer is None:
            return
        row["memory_gb"] = round(peak_memory_bytes(self.world.device) / 1e9, 3)
        if self.gpu_name is not None:
            recipe, ranks = self.recipe, self.world.world_size
            row["mfu"] = compute_mfu(
                row["tokens_per_s"], recipe.model, ranks, self.gpu_name, recipe.train.precision
            )
        self.log_update(**row)
        self.on_metrics({**row, "steps": self.recipe.train.steps})
        self.trackers.log(row)

    def log_update(self, step: int, **values: Any) -> None:
        """Append a line to metrics.jsonl only: metrics of a step computed after its row."""
        if self.writer is None:
            return
        written = self.writer.write(step=step, **values)
        if not written and not self.has_warned:
            self.notify(
                f"Lines of {METRICS_FILE} cannot be written now and will be retried "
                f"({self.writer.last_error})."
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
                f"{lost:,} lines of {METRICS_FILE} could not be written ({self.writer.last_error})."
            )
        if self.gpu_name is not None and error is None:
            predicted = estimate_memory(self.recipe.model, self.recipe.train, self.world.world_size)
            self.notify(
                f"peak memory: {peak_memory_bytes(self.world.device) / 1e9:.1f} GB, "
                f"{predicted.allocated_bytes / 1e9:.1f} predicted"
            )


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of PyTorch's memory on a GPU, else of the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


class AsyncMetricReader:
    """Reads the metrics of steps from the device without making it wait."""

    def __init__(
        self,
        settings: TrainConfig,
        device: torch.device,
        step: int = 0,
        elapsed: float = 0.0,
        max_pending: int | None = None,
    ) -> None:
        """Start after `step` steps and `elapsed` seconds of training."""
        self.settings, self.step = settings, step
        self.start_time = time.monotonic() - elapsed
        # steps that stay unread: a CPU has computed a step when it returns
        self.max_pending = max_pending if max_pending is not None else int(device.type == "cuda")
        self.stop_requested = False  # on any rank
        # metrics on the host, complete once their event is, and the learning rate
        self.pending: deque[tuple[Tensor, torch.Event | None, float]] = deque()
        self.step_start_time = time.perf_counter()  # of the step that is read next

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of training so far, in all processes of the run."""
        return round(time.monotonic() - self.start_time, 3)

    def push(self, metrics: Tensor, lr: float) -> None:
        """Add the metrics and the learning rate of the next step, which has been started."""
        arrived = None
        if metrics.device.type == "cuda":
            host = torch.empty(metrics.shape, dtype=metrics.dtype, pin_memory=True)
            metrics = host.copy_(metrics, non_blocking=True)
            arrived = torch.Event("cuda")
            arrived.record()
        self.pending.append((metrics, arrived, lr))

    def read_rows(self, drain: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the rows of the steps that are due, oldest first; wait until they are computed."""
        settings = self.settings
        while len(self.pending) > (0 if drain else self.max_pending):
            metrics, arrived, lr = self.pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            values = dict(zip(STEP_METRICS, metrics.tolist(), strict=True))
            seconds = time.perf_counter() - self.step_start_time
            self.step_start_time += seconds
            self.step += 1
            self.stop_requested = self.stop_requested or values["stop"] > 0
            yield {
                "step": self.step,
                "tokens": self.step * settings.tokens_per_step,
                "loss": _round_finite(values["loss"]),
                "grad_norm": _round_finite(values["grad_norm"]),
                "lr": lr,
                "tokens_per_s": round(settings.tokens_per_step / seconds, 1),
                "seconds": self.elapsed_seconds,
                "skipped": bool(values["skipped"]),
                **({"spike": True} if values["skipped"] == SKIPPED_SPIKE else {}),
                **({"final": True} if self.step == settings.steps else {}),
            }

    def rewind(self, step: int) -> None:
        """Continue from an earlier step; unread metrics are dropped."""
        self.pending.clear()
        self.step = step
        self.reset_timer()

    def reset_timer(self) -> None:
        """Exclude the time until now from the next step's time."""
        self.step_start_time = time.perf_counter()


def _round_finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None  # JSON has no NaN
