"""How does a gradient become a step? AdamW, with decay on matrices only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from gnano.model import GPT


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    beta1: float = 0.9  # memory of the gradient's mean
    beta2: float = 0.95  # memory of its square
    eps: float = 1e-8  # added to the root of the square
    weight_decay: float = 0.1  # shrink of the matrices a step, times the learning rate

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"train.optimizer.{name} is {getattr(self, name)}; it must be in [0, 1)."
                )
        if self.weight_decay < 0 or self.eps <= 0:
            raise ValueError("train.optimizer needs weight_decay ≥ 0 and eps > 0.")


def adamw(model: "GPT", config: AdamWConfig) -> "torch.optim.Optimizer":
    """AdamW (Loshchilov & Hutter 2019); norms' gains are not decayed."""
    import torch

    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() >= 2]},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=0.0,  # the schedule sets it before every step
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
