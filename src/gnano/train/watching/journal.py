"""Who hears of a step? The log of the run first, then who watches it, then its trackers.

`metrics.jsonl` has one JSON object a line and is only ever appended to. After a kill the steps
since the last checkpoint are done again and logged again, with the same figures; a reader takes
the later line of a step, adds to it one without a loss, and skips a torn one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from gnano.model.hardware import mfu
from gnano.train.begun import METRICS as NAME
from gnano.train.memory import predict
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe, flatten
from gnano.train.waiting import Say
from gnano.train.watching.log import Log
from gnano.train.watching.trackers import Trackers
from gnano.utils.host import peak_resident_bytes

Watch = Callable[[dict[str, Any]], None]  # sees the figures of every step, and `steps`, of all


class Journal:
    """Written by the first rank alone; the others' is empty."""

    def __init__(self, recipe: Recipe, run: Path, world: World, watch: Watch, say: Say) -> None:
        self.recipe, self.world, self.watch, self.say = recipe, world, watch, say
        self.gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
        self.log = Log(run / NAME) if world.first else None
        self.warned = False
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
        self._log(**row)
        self.watch({**row, "steps": self.recipe.train.steps})
        self.trackers.log(row)

    def add(self, step: int, **values: Any) -> None:
        """What is learned of a step only after it was written."""
        self._log(step=step, **values)

    def _log(self, **values: Any) -> None:
        if self.log is None:
            return
        written = self.log.write(**values)
        if not written and not self.warned:
            self.say(f"Lines of {NAME} wait until they can be written ({self.log.lacking}).")
        self.warned = not written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.trackers.close()
        if self.log is None:
            return
        if lost := self.log.close():
            self.say(f"{lost:,} lines of {NAME} could not be written ({self.log.lacking}).")
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
    return peak_resident_bytes()
