"""Who hears of a step? The log of the run first, then who watches it, then its trackers.

`metrics.jsonl` has one JSON object a line and is only ever appended to. After a kill the steps
since the last checkpoint are done again and logged again, with the same figures; a reader takes
the later line of a step, adds to it one without a loss, and skips a torn one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from gnano.model.hardware import compute_mfu
from gnano.train.begun import METRICS_FILE as NAME
from gnano.train.memory import estimate_memory
from gnano.train.ranks.world import DistContext
from gnano.train.recipe import Recipe, flatten_recipe
from gnano.train.waiting import Notify
from gnano.train.watching.log import JsonLinesWriter
from gnano.train.watching.trackers import Trackers
from gnano.utils.host import peak_resident_bytes

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
