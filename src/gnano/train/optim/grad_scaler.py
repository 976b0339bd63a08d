"""Dynamic loss scaling for fp16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

fp16 has no values below 6e-8; a loss times 65,536 has gradients times 65,536, which the optimizer
divides out again. If one overflows, the step is skipped and the scale halved; after
`GROWTH_INTERVAL` good steps it doubles. All of it happens on the device.
"""

import torch
from torch import Tensor

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2_000  # good steps before a larger scale is tried


class GradScaler:
    """The scale of the loss and the good steps since it last changed, as tensors on the device."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), INITIAL_SCALE, device=device)
        self.good_steps = torch.zeros((), device=device)

    def update(self, skipped: Tensor) -> None:
        """Adjust the scale after a step; `skipped` is 1.0 if its gradient was not finite."""
        self.good_steps.add_(1).mul_(1 - skipped)
        grows = self.good_steps >= GROWTH_INTERVAL
        self.scale.mul_(torch.where(skipped > 0, 0.5, torch.where(grows, 2.0, 1.0)))
        self.good_steps.mul_(~grows)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint stores."""
        return {"loss_scale/scale": self.scale, "loss_scale/good": self.good_steps}
