"""How large is an adapter, and what does it change? LoRA's figures (Hu et al. 2021, 2106.09685)."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from gnano.utils.ranges import Range, check_ranges
from gnano.utils.unused import refuse_unused

Layer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    # of the change to each matrix; 0: all weights are tuned
    rank: Annotated[int, Range(0, 2**24)] = 0
    # the change is scaled by alpha / rank
    alpha: Annotated[float, Range(0, 1e30, above=True)] = 16.0
    # share of the adapter's input zeroed in training
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0
    layers: tuple[Layer, ...] = LAYERS  # whose matrices are changed, in every block

    def __post_init__(self) -> None:
        check_ranges(self, "train.lora")
        if not self.rank:
            names = ("alpha", "dropout", "layers")
            refuse_unused(self, "train.lora.", names, "train.lora.rank is 0 (no adapter)")
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(
                f"train.lora.layers is {list(self.layers)}; name some of {', '.join(LAYERS)}."
            )

    @property
    def scale(self) -> float:
        """What the product of an adapter's two matrices is multiplied by."""
        return self.alpha / self.rank
