"""Stability: bad steps are skipped; where that does not end, the run skips their data.

A step whose loss or gradient is not finite (or, if asked for, far above the last ones) changes
nothing, on any rank. After `patience` of them in a row the run goes back to its last good
checkpoint, and then past the samples of those steps:

    step          38  39  40  41 … 50                  41  42
    takes data    38  39  40  41 … 50 (all skipped)    51  52
    checkpoint        ↑────────────── back to here, 39 … as before
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gnano.train.config import StabilityConfig


class StabilityMonitor:
    """`state` is what `state()` gave when the run was saved."""

    def __init__(
        self,
        config: StabilityConfig,
        peak_lr: float,
        state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.config, self.peak_lr = config, peak_lr
        self.consecutive_skips: int = state.get("skipped", 0)  # steps in a row
        self.skipped_ranges: list[list[int]] = state.get(
            "detours", []
        )  # [first step, steps of data]

    def observe(self, row: dict[str, Any]) -> None:
        """Count the skipped steps in a row; `row` holds the metrics of a step."""
        self.consecutive_skips = self.consecutive_skips + 1 if row["skipped"] else 0

    @property
    def needs_rollback(self) -> bool:
        """Is the run to go back?"""
        return self.consecutive_skips >= self.config.rollback_after

    def final_message(self, step: int) -> str | None:
        """What is to be said of the steps that were skipped last, at the end of the run.

        Raises ValueError where every step of the run was.
        """
        if not self.consecutive_skips:
            return None
        why = "their loss or its gradient was infinite or NaN"
        why += ", or spiked" if self.config.spike_threshold else ""
        advice = f"lower train.schedule.peak (now {self.peak_lr:g}) or check the data"
        if self.consecutive_skips >= step:
            raise ValueError(
                f"All {step:,} steps were skipped, and nothing was learned: {why}; {advice}, in "
                f"another folder (--out)."
            )
        return f"The last {self.consecutive_skips:,} steps were skipped: {why}; {advice}."

    def state_dict(self) -> dict[str, Any]:
        return {
            "skipped": self.consecutive_skips,
            "detours": [list(detour) for detour in self.skipped_ranges],
        }

    def data_index(self, step: int) -> int:
        """Whose samples a step (from 0) takes: those of a later one, once some were gone around."""
        return step + sum(steps for first, steps in self.skipped_ranges if step >= first)

    def skip_data(self, step: int, was_restored: bool) -> None:
        """From now on the data of the skipped steps, which end before `step`, is gone around.

        Raises ValueError where that is not `possible`, or was done too often to help.
        """
        first, row = step - self.consecutive_skips, self.consecutive_skips
        if not was_restored or len(self.skipped_ranges) >= self.config.max_rollbacks:
            why = (
                f"after it went back and around other data {len(self.skipped_ranges)} times "
                f"(train.stability.rollbacks)"
                if was_restored
                else "with no good checkpoint before them to go back to"
            )
            raise ValueError(
                f"The loss or its gradient became infinite or NaN"
                f"{' or spiked' if self.config.spike_threshold else ''} in step {first + 1:,} and stayed so "
                f"for {row} steps, all of them skipped, {why}; lower train.schedule.peak (now "
                f"{self.peak_lr:g}) or check the data."
            )
        self.skipped_ranges.append([first, row])
        self.consecutive_skips = 0
