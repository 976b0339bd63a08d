"""How large is an adapter, and what does it change? LoRA's figures (Hu et al. 2021, 2106.09685)."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Layer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    rank: int = 0  # of the change to each matrix; 0: all weights are tuned
    alpha: float = 16.0  # the change is scaled by alpha / rank
    dropout: float = 0.0  # share of the adapter's input zeroed in training
    layers: tuple[Layer, ...] = LAYERS  # whose matrices are changed, in every block

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"train.lora.rank is {self.rank}; use 0 (no adapter) or more.")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"train.lora.alpha is {self.alpha}; it must be more than 0.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"train.lora.dropout is {self.dropout}; it must be in [0, 1).")
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(
                f"train.lora.layers is {list(self.layers)}; name some of {', '.join(LAYERS)}."
            )

    @property
    def scale(self) -> float:
        """What the product of an adapter's two matrices is multiplied by."""
        return self.alpha / self.rank
