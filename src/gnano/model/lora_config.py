"""How large is an adapter, and what does it change? LoRA's figures (Hu et al. 2021, 2106.09685)."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from gnano.utils.ranges import Range, check_field_ranges
from gnano.utils.unused import reject_unused

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGET_MODULES: tuple[TargetModule, ...] = get_args(TargetModule)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    # of the change to each matrix; 0: all weights are tuned
    rank: Annotated[int, Range(0, 2**24)] = 0
    # the change is scaled by alpha / rank
    alpha: Annotated[float, Range(0, 1e30, exclusive_minimum=True)] = 16.0
    # share of the adapter's input zeroed in training
    dropout: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.0
    target_modules: tuple[TargetModule, ...] = (
        TARGET_MODULES  # whose matrices are changed, in every block
    )

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.lora")
        if not self.rank:
            names = ("alpha", "dropout", "layers")
            reject_unused(self, "train.lora.", names, "train.lora.rank is 0 (no adapter)")
        if not self.target_modules or not set(self.target_modules) <= set(TARGET_MODULES):
            raise ValueError(
                f"train.lora.target_modules is {list(self.target_modules)}; name some of {', '.join(TARGET_MODULES)}."
            )

    @property
    def scaling(self) -> float:
        """What the product of an adapter's two matrices is multiplied by."""
        return self.alpha / self.rank
