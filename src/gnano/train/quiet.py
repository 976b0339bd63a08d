"""When is Python's garbage collected? Between steps, at the same ones on every rank.

Left alone, a collection stops one rank for some milliseconds at a moment of its own, and all
others wait for it in the next exchange.
"""

import gc
from types import TracebackType
from typing import Self


class NoGarbage:
    """While entered, only `collect()` collects, and what was there before is not looked at."""

    def __enter__(self) -> Self:
        self.enabled = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        return self

    def collect(self) -> None:
        gc.collect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        gc.unfreeze()
        if self.enabled:
            gc.enable()
