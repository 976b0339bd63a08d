"""Has the run gone wrong for good? One step that is not finite is skipped, many are an end."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    patience: int = 10  # skipped steps in a row before the run goes back and around their data
    rollbacks: int = 3  # times it may do so before it gives up
    spike: float = 0.0  # robust z-score of loss or gradient norm that skips a step; 0: none does
    window: int = 128  # steps that a spike is measured against
    stall: float = 1_800.0  # seconds in one phase after which a run counts as stuck; 0: never

    def __post_init__(self) -> None:
        for name in ("patience", "window"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"train.guard.{name} is {getattr(self, name)}; it must be at least 1."
                )
        for name in ("rollbacks", "spike", "stall"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"train.guard.{name} is {getattr(self, name)}; it must not be negative."
                )


class Guard:
    def __init__(self, config: GuardConfig, peak: float) -> None:
        self.config, self.peak = config, peak
        self.skipped = 0

    def __call__(self, row: dict[str, Any]) -> None:
        """Look at the figures of a step; raises ValueError when there is no hope left."""
        self.skipped = self.skipped + 1 if row["skipped"] else 0
        if self.skipped == self.config.patience:
            raise ValueError(
                f"The loss or its gradient became infinite or NaN in step "
                f"{row['step'] - self.skipped + 1:,} and has stayed so for {self.skipped} steps, "
                f"all of them skipped; lower train.schedule.peak (now {self.peak:g}) or check the "
                f"data."
            )
