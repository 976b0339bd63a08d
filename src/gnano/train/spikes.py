"""Spike detection on the device, so that no step waits for it.

    z = (value − median) / (1.4826 · median of |values − median|)      of the last `window` steps

once for the loss and once for the gradient's norm: a robust z-score, which a few wild values
among the remembered do not widen. A step that spikes is skipped on all ranks, as one that is not
finite is, and not remembered.
"""

import torch
from torch import Tensor

from gnano.model.devices import widest_dtype

NORMAL = 1.4826  # makes the median deviation of a normal distribution its standard deviation
LEAST = 1e-3  # of the median: steps that hardly differ are no measure of a spike


class Spikes:
    """`threshold`: the z-score from which a step counts as a spike."""

    def __init__(self, window: int, threshold: float, device: torch.device) -> None:
        self.threshold = threshold
        dtype = widest_dtype(device)
        self.seen = torch.full((2, window), torch.nan, dtype=dtype, device=device)

    def detect(self, values: Tensor) -> Tensor:
        """Return whether any of the values [2] spikes; never before the window is full."""
        middle = _median(self.seen)
        spread = NORMAL * _median((self.seen - middle).abs())
        # a NaN among the remembered, of a window that is not full, compares as False
        far = values[:, None] - middle > self.threshold * spread.maximum(LEAST * middle.abs())
        return far.any()

    def remember(self, values: Tensor, skipped: Tensor) -> None:
        """After the step: its values [2], unless it was skipped."""
        later = torch.cat((self.seen[:, 1:], values[:, None]), dim=1)
        self.seen.copy_(torch.where(skipped, self.seen, later))

    def tensors(self) -> dict[str, Tensor]:
        return {"spikes/seen": self.seen}


def _median(rows: Tensor) -> Tensor:
    """Of each row, [rows, 1]; NaN where one is in it (`torch.median` does not say for ties)."""
    ordered = rows.sort(dim=1).values  # NaN comes last
    return ordered[:, rows.shape[1] // 2, None] + 0 * ordered[:, -1:]
