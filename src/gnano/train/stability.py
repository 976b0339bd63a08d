"""Spike detection on the device, so that no step waits for it.

    z = (value − median) / (1.4826 · median of |values − median|)      of the last `window` steps

once for the loss and once for the gradient's norm: a robust z-score, which a few wild values
among the remembered do not widen. A step that spikes is skipped on all ranks, as one that is not
finite is, and not remembered.

Stability: bad steps are skipped; where that does not end, the run skips their data.

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

import torch
from torch import Tensor

from gnano.config.train_config import StabilityConfig
from gnano.model.devices import accumulation_dtype

MAD_TO_STD = 1.4826  # makes the median deviation of a normal distribution its standard deviation
MIN_RELATIVE_SPREAD = 1e-3  # of the median: steps that hardly differ are no measure of a spike


class SpikeDetector:
    """`threshold`: the z-score from which a step counts as a spike."""

    def __init__(self, window: int, threshold: float, device: torch.device) -> None:
        self.threshold = threshold
        dtype = accumulation_dtype(device)
        self.history = torch.full((2, window), torch.nan, dtype=dtype, device=device)

    def is_spike(self, values: Tensor) -> Tensor:
        """Return whether any of the values [2] spikes; never before the window is full."""
        middle = _row_median(self.history)
        spread = MAD_TO_STD * _row_median((self.history - middle).abs())
        # a NaN among the remembered, of a window that is not full, compares as False
        far = values[:, None] - middle > self.threshold * spread.maximum(
            MIN_RELATIVE_SPREAD * middle.abs()
        )
        return far.any()

    def update(self, values: Tensor, is_skipped: Tensor) -> None:
        """After the step: its values [2], unless it was skipped."""
        later = torch.cat((self.history[:, 1:], values[:, None]), dim=1)
        self.history.copy_(torch.where(is_skipped, self.history, later))

    def state_dict(self) -> dict[str, Tensor]:
        return {"spikes/seen": self.history}


def _row_median(rows: Tensor) -> Tensor:
    """Of each row, [rows, 1]; NaN where one is in it (`torch.median` does not say for ties)."""
    ordered = rows.sort(dim=1).values  # NaN comes last
    return ordered[:, rows.shape[1] // 2, None] + 0 * ordered[:, -1:]


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
                f"(train.stability.max_rollbacks)"
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
