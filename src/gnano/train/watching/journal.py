"""Who hears of a step? The log of the run first, then who watches it, then its trackers."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from gnano.model import mfu
from gnano.train.memory import predict
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe, flatten
from gnano.train.waiting import Say
from gnano.train.watching.metrics import MetricsLog
from gnano.train.watching.trackers import Trackers

Watch = Callable[[dict[str, Any]], None]  # sees the figures of every step


class Journal:
    """Written by the first rank alone; the others' is empty."""

    def __init__(self, recipe: Recipe, run: Path, world: World, watch: Watch, say: Say) -> None:
        self.recipe, self.world, self.watch, self.say = recipe, world, watch, say
        self.gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
        self.log = MetricsLog(run) if world.first else None
        names = recipe.train.trackers if world.first else ()
        self.trackers = Trackers(names, run, flatten(recipe), say)

    def write(self, row: dict[str, Any]) -> None:
        """The figures of a step, to all; they gain what this device makes of them."""
        if self.log is None:
            return
        row["memory_gb"] = round(peak_memory(self.world.device) / 1e9, 3)
        if self.gpu is not None:
            ranks, precision = self.world.size, self.recipe.train.precision
            row["mfu"] = mfu(row["tokens_per_s"], self.recipe.model, ranks, self.gpu, precision)
        self.log.write(**row)
        self.watch(row)
        self.trackers(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.trackers.close()
        if self.log is None:
            return
        self.log.close()
        if self.gpu is not None and error is None:
            predicted = predict(self.recipe.model, self.recipe.train, self.world.size)
            self.say(
                f"memory: {peak_memory(self.world.device) / 1e9:.1f} GB at most, "
                f"{predicted.allocated / 1e9:.1f} predicted"
            )


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that PyTorch held on a GPU, or that the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kB
