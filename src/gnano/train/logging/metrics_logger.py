"""The metrics of every step: read from the device, logged, and shown on a progress line.

    device ─ push, read_rows ─▶ row ─ log ─▶ metrics.jsonl, ProgressBar, trackers

A GPU gets its work ahead of time; reading a loss immediately would make the host wait until it is
computed, and then the device wait for the host. `MetricsLogger` copies a step's metrics to the
host in the background, and reads them when the next step has been started.

`metrics.jsonl` has one JSON object per line and is append-only. After a kill, the steps since the
last checkpoint are repeated and logged again, with the same values; a reader uses the later line of
a step, adds a line without a loss to it, and skips a torn one (`utils/jsonl_log.py`).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gnano.config.recipe import Recipe, flatten_recipe
from gnano.model.flops import compute_mfu
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import estimate_memory
from gnano.train.logging.trackers import Trackers
from gnano.train.run_dir import METRICS_FILE
from gnano.train.train_step import SKIPPED_SPIKE, STEP_METRICS
from gnano.train.training_task import Notify
from gnano.utils.formatting import format_clock, plural
from gnano.utils.jsonl_log import JsonLinesWriter
from gnano.utils.platform_support import peak_resident_bytes
from gnano.utils.terminal import StatusLine

MetricsCallback = Callable[[dict[str, Any]], None]  # gets each row, and `steps`, their number
SPEED_SMOOTHING = 0.05  # weight of the newest step in the speed shown: an average over about 20


class MetricsLogger:
    """Reads the metrics of steps without making the device wait, and logs them on the main rank."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: DistContext,
        on_metrics: MetricsCallback,
        notify: Notify,
        step: int = 0,
        state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Continue after `step` steps; `state` is that of the checkpoint, if there is one."""
        self.recipe, self.world, self.on_metrics, self.notify = recipe, world, on_metrics, notify
        self.config, self.step = recipe.train, step
        # steps skipped since the last good one
        self.consecutive_skips: int = state.get("stability", {}).get("consecutive_skips", 0)
        # of training, as if in a single process
        self.start_time = time.monotonic() - state.get("seconds", 0.0)
        # steps that stay unread: a CPU has computed a step when it returns
        self.max_pending = int(world.device.type == "cuda")
        self.stop_requested = False  # on any rank
        # metrics on the host, complete once their event is, and the learning rate
        self.pending: deque[tuple[Tensor, torch.Event | None, float]] = deque()
        # of the step that is read next; set it again after work between two steps
        self.step_start_time = time.perf_counter()
        self.writer = JsonLinesWriter(run / METRICS_FILE) if world.is_main else None
        self.has_warned = False
        names = self.config.trackers if world.is_main else ()
        self.trackers = Trackers(names, run, flatten_recipe(recipe), notify) if names else None

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
        config = self.config
        while len(self.pending) > (0 if drain else self.max_pending):
            metrics, arrived, lr = self.pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            values = dict(zip(STEP_METRICS, metrics.tolist(), strict=True))
            seconds = time.perf_counter() - self.step_start_time
            self.step_start_time += seconds
            self.step += 1
            self.stop_requested = self.stop_requested or values["stop"] > 0
            self.consecutive_skips = self.consecutive_skips + 1 if values["skipped"] else 0
            row = {
                "step": self.step,
                "tokens": self.step * config.tokens_per_step,
                "loss": values["loss"],
                "grad_norm": values["grad_norm"],
                "lr": lr,
                "tokens_per_s": round(config.tokens_per_step / seconds, 1),
                "seconds": round(time.monotonic() - self.start_time, 3),
                "skipped": bool(values["skipped"]),
            }
            for name in ("loss", "grad_norm"):  # JSON has no NaN
                row[name] = round(row[name], 5) if math.isfinite(row[name]) else None
            if values["skipped"] == SKIPPED_SPIKE:
                row["spike"] = True
            if self.step == config.steps:
                row["final"] = True
            yield row

    def rewind(self, step: int) -> None:
        """Continue from an earlier step; unread metrics are dropped."""
        self.pending.clear()
        self.step, self.consecutive_skips = step, 0
        self.step_start_time = time.perf_counter()

    def log(self, row: dict[str, Any]) -> None:
        """Log the metrics of a step everywhere, with the memory and MFU of this device added."""
        if self.writer is None:
            return
        row["memory_gb"] = round(peak_memory_bytes(self.world.device) / 1e9, 3)
        if self.world.device.type == "cuda":
            gpu, ranks = torch.cuda.get_device_name(self.world.device), self.world.world_size
            row["mfu"] = compute_mfu(
                row["tokens_per_s"], self.recipe.model, ranks, gpu, self.config.precision
            )
        self.log_update(**row)
        self.on_metrics({**row, "steps": self.config.steps})
        if self.trackers:
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

    def close(self) -> None:
        """Write the lines that are left, and report those that cannot be written."""
        if self.trackers:
            self.trackers.close()
        if self.writer and (lost := self.writer.close()):
            self.notify(
                f"{lost:,} lines of {METRICS_FILE} could not be written ({self.writer.last_error})."
            )

    def report_peak_memory(self) -> None:
        """Report the peak of the GPU's memory, and the predicted one."""
        predicted = estimate_memory(self.recipe.model, self.config, self.world.world_size)
        self.notify(
            f"peak memory: {peak_memory_bytes(self.world.device) / 1e9:.1f} GB, "
            f"{predicted.allocated_bytes / 1e9:.1f} predicted"
        )


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of PyTorch's memory on a GPU, else of the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


class ProgressBar:
    """Shows the metrics of the current step and the time left, the most important parts first.

    A narrow terminal shows as many as fit:

        step 1,240/50,000 · loss 3.214 · 23:10:05 left · 94,210 tokens/s · 60.1% MFU · …
    """

    def __init__(self, line: StatusLine | None = None) -> None:
        self.line = line or StatusLine()
        self.steps_seen = 0  # in this process; a resumed run starts at 0 again
        self.start_time = 0.0  # after the first step, which also compiles and warms up
        self.seconds_per_token = 0.0  # smoothed; times, unlike speeds, can be averaged
        self.loss_text = "…"
        self.steps_skipped = 0
        self.heldout_text = self.tasks_text = ""

    def update(self, metrics: dict[str, Any]) -> None:
        """Show the metrics of a step, and `steps`, the number of all steps."""
        now, seconds_per_token = time.monotonic(), 1 / metrics["tokens_per_s"]
        self.steps_seen += 1
        if self.steps_seen == 1:
            self.start_time = now
        if self.steps_seen <= 2:
            self.seconds_per_token = seconds_per_token
        self.seconds_per_token += SPEED_SMOOTHING * (seconds_per_token - self.seconds_per_token)
        tokens_per_s = 1 / self.seconds_per_token
        time_left = mfu = ""
        if self.steps_seen > 1:  # at the average speed so far, evaluations included
            seconds_per_step = (now - self.start_time) / (self.steps_seen - 1)
            steps_left = metrics["steps"] - metrics["step"]
            time_left = f"{format_clock(seconds_per_step * steps_left)} left"
        if "mfu" in metrics:  # on a GPU; None for one whose peak is unknown
            mfu = "MFU unknown"
            if metrics["mfu"] is not None:
                mfu = f"{metrics['mfu'] * tokens_per_s / metrics['tokens_per_s']:.1%} MFU"
        self.steps_skipped += bool(metrics.get("skipped"))
        if metrics["loss"] is not None:
            self.loss_text = f"{metrics['loss']:.3f}"
        if "heldout" in metrics:
            result = metrics["heldout"]
            if "accuracy" in result:
                text = f"{result['loss']:.3f}, {result['accuracy']:.0%} as preferred"
            elif "loss" in result:
                text = f"{result['loss']:.3f} nats/token"
            else:
                text = f"{result['bits_per_byte']:.3f} bits/byte"
            self.heldout_text = f"held-out {text}"
        if "tasks" in metrics:
            results = metrics["tasks"].items()
            main = {name: values.get("acc_norm", values.get("acc")) for name, values in results}
            shown = [f"{name} {value:.3f}" for name, value in main.items() if value is not None]
            self.tasks_text = " · ".join(shown)
        parts = [
            f"step {metrics['step']:,}/{metrics['steps']:,}",
            f"loss {self.loss_text}",
            f"{plural(self.steps_skipped, 'step')} skipped" if self.steps_skipped else "",
            time_left,
            f"{tokens_per_s:,.0f} tokens/s",
            mfu,
            self.heldout_text,
            self.tasks_text,
            f"norm {metrics['grad_norm']:.2f}" if metrics["grad_norm"] is not None else "",
            f"lr {metrics['lr']:.2e}",
            f"{metrics['memory_gb']:.1f} GB" if "memory_gb" in metrics else "",
        ]
        has_results = "heldout" in metrics or "tasks" in metrics
        self.line.update(" · ".join(filter(None, parts)), important=has_results)

    def show_message(self, text: str, waiting: bool = False) -> None:
        """Show a message above the line or, with `waiting`, what the run waits for in the line."""
        if waiting:
            self.line.update(text)
        else:
            self.line.print(text)
