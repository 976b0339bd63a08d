"""Spike detection on the device, so that no step waits for it.

    z = (value − median) / (1.4826 · median of |values − median|)      of the last `window` steps

once for the loss and once for the gradient's norm: a robust z-score, which a few wild values
among the remembered do not widen. A step that spikes is skipped on all ranks, as one that is not
finite is, and not remembered.
"""

import torch
from torch import Tensor

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
