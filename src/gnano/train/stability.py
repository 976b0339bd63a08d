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

import torch
from torch import Tensor

from gnano.config.train_config import TrainConfig
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


def describe_last_skips(count: int, step: int, config: TrainConfig) -> str:
    """Return a message about the `count` steps skipped at the end of the run.

    Raises ValueError where every step of the run was skipped.
    """
    spiked = ", or spiked" if config.stability.spike_threshold else ""
    why = f"their loss or its gradient was infinite or NaN{spiked}"
    advice = f"lower train.schedule.peak (now {config.schedule.peak:g}) or check the data"
    if count >= step:
        raise ValueError(
            f"All {step:,} steps were skipped, so the model did not learn: {why}; {advice}, "
            f"and start again in another folder (--out)."
        )
    return f"The last {count:,} steps were skipped: {why}; {advice}."


def check_rollback(
    first: int, count: int, rollbacks: int, was_restored: bool, config: TrainConfig
) -> None:
    """Raise ValueError where no checkpoint was restored, or after too many rollbacks.

    `first` (from 0) is the first of the `count` steps that were skipped.
    """
    if was_restored and rollbacks < config.stability.max_rollbacks:
        return
    spiked = " or spiked" if config.stability.spike_threshold else ""
    why = (
        f"after {rollbacks} rollbacks (train.stability.max_rollbacks)"
        if was_restored
        else "and no good checkpoint precedes them"
    )
    raise ValueError(
        f"The loss or its gradient became infinite or NaN{spiked} in step {first + 1:,} "
        f"and stayed so for {count} steps, all of them skipped, {why}. Lower "
        f"train.schedule.peak (now {config.schedule.peak:g}) or check the data."
    )
