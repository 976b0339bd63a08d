"""Has the run gone wrong for good? One step that is not finite is skipped, many are an end."""

from typing import Any

PATIENCE = 10  # skipped steps in a row


class Guard:
    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.skipped = 0

    def __call__(self, row: dict[str, Any]) -> None:
        """Look at the figures of a step; raises ValueError when there is no hope left."""
        self.skipped = self.skipped + 1 if row["skipped"] else 0
        if self.skipped == PATIENCE:
            raise ValueError(
                f"The loss or its gradient became infinite or NaN in step "
                f"{row['step'] - PATIENCE + 1:,} and has stayed so for {PATIENCE} steps, all of "
                f"them skipped; lower train.schedule.peak (now {self.peak:g}) or check the data."
            )
