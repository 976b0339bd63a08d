"""Stability: bad steps are skipped; if they persist, the run rolls back and skips their data.

A step whose loss or gradient is not finite (or, if configured, spikes) changes nothing, on any
rank. After `rollback_after` such steps in a row the run restores its last good checkpoint, and
later skips the samples of those steps:

    step          38  39  40  41 … 50                  41  42
    takes data    38  39  40  41 … 50 (all skipped)    51  52
    checkpoint        ↑────────────── restored, 39 … as before

A spike is a loss or gradient norm with a large robust z-score over the last `spike_window` steps,
which a few outliers in the window do not widen:

    z = (value − median) / (1.4826 · median of |values − median|)

It is computed on the device, so that no step waits for it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gnano.config.train_config import StabilityConfig
from gnano.utils.platform_support import accumulation_dtype

MAD_TO_STD = 1.4826  # from median deviation to standard deviation, of a normal distribution
MIN_RELATIVE_SPREAD = 1e-3  # of the median: nearly constant values are no measure of a spike


class SpikeDetector:
    """Detects steps whose z-score reaches `threshold`."""

    def __init__(self, window: int, threshold: float, device: torch.device) -> None:
        self.threshold = threshold
        dtype = accumulation_dtype(device)
        self.history = torch.full((2, window), torch.nan, dtype=dtype, device=device)

    def is_spike(self, values: Tensor) -> Tensor:
        """Return whether any of the values [2] spikes; never before the window is full."""
        median = _row_median(self.history)
        spread = MAD_TO_STD * _row_median((self.history - median).abs())
        # the NaN of a window that is not full compares as False
        is_far = values[:, None] - median > self.threshold * spread.maximum(
            MIN_RELATIVE_SPREAD * median.abs()
        )
        return is_far.any()

    def update(self, values: Tensor, is_skipped: Tensor) -> None:
        """Add the values [2] of a step to the window, unless it was skipped."""
        shifted = torch.cat((self.history[:, 1:], values[:, None]), dim=1)
        self.history.copy_(torch.where(is_skipped, self.history, shifted))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the window, for the checkpoint."""
        return {"spikes/seen": self.history}


def _row_median(rows: Tensor) -> Tensor:
    """Return each row's median [rows, 1]; NaN in a row with NaN, which is sorted last."""
    ordered = rows.sort(dim=1).values  # `torch.median` does not specify ties
    return ordered[:, rows.shape[1] // 2, None] + 0 * ordered[:, -1:]


class StabilityMonitor:
    """Counts skipped steps and decides on rollbacks; `state` is that of a checkpoint."""

    def __init__(
        self,
        config: StabilityConfig,
        peak_lr: float,
        state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.config, self.peak_lr = config, peak_lr
        self.consecutive_skips: int = state.get("consecutive_skips", 0)
        # [first step, number of steps] of data
        self.skipped_ranges: list[list[int]] = state.get("skipped_ranges", [])

    def observe(self, row: dict[str, Any]) -> None:
        """Count a step if it was skipped; `row` holds its metrics."""
        self.consecutive_skips = self.consecutive_skips + 1 if row["skipped"] else 0

    @property
    def needs_rollback(self) -> bool:
        """Return whether too many steps in a row were skipped."""
        return self.consecutive_skips >= self.config.rollback_after

    def final_message(self, step: int) -> str:
        """Return a message about the steps skipped at the end of the run.

        Raises ValueError where every step of the run was skipped.
        """
        spiked = ", or spiked" if self.config.spike_threshold else ""
        why = f"their loss or its gradient was infinite or NaN{spiked}"
        advice = f"lower train.schedule.peak (now {self.peak_lr:g}) or check the data"
        if self.consecutive_skips >= step:
            raise ValueError(
                f"All {step:,} steps were skipped, so the model did not learn: {why}; {advice}, "
                f"and start again in another folder (--out)."
            )
        return f"The last {self.consecutive_skips:,} steps were skipped: {why}; {advice}."

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "consecutive_skips": self.consecutive_skips,
            "skipped_ranges": [list(skipped) for skipped in self.skipped_ranges],
        }

    def data_index(self, step: int) -> int:
        """Return the step (from 0) whose samples this step takes: later ones, after skips."""
        return step + sum(steps for first, steps in self.skipped_ranges if step >= first)

    def skip_data(self, step: int, was_restored: bool) -> None:
        """Skip the data of the skipped steps, which end before `step`, from now on.

        Raises ValueError where no checkpoint was restored, or after too many rollbacks.
        """
        first, count = step - self.consecutive_skips, self.consecutive_skips
        rollbacks = len(self.skipped_ranges)
        if not was_restored or rollbacks >= self.config.max_rollbacks:
            spiked = " or spiked" if self.config.spike_threshold else ""
            why = (
                f"after {rollbacks} rollbacks (train.stability.max_rollbacks)"
                if was_restored
                else "and no good checkpoint precedes them"
            )
            raise ValueError(
                f"The loss or its gradient became infinite or NaN{spiked} in step {first + 1:,} "
                f"and stayed so for {count} steps, all of them skipped, {why}. Lower "
                f"train.schedule.peak (now {self.peak_lr:g}) or check the data."
            )
        self.skipped_ranges.append([first, count])
        self.consecutive_skips = 0
