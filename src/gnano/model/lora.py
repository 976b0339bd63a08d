"""LoRA: frozen matrices with trainable low-rank updates.

    y = x Wᵀ + alpha / rank · x Aᵀ Bᵀ        W [out, in] is frozen
                                             A [rank, in], B [out, rank] are trained

B starts as zero, so the model is initially exactly the base. `merge_lora` adds the updates to the
matrices, after which they cost nothing.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685; A is initialized as in PEFT.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.config.model_config import LoraConfig
from gnano.model.transformer import GPT, Linear

LORA_A, LORA_B = "lora_A.weight", "lora_B.weight"  # names within a layer


class LoraLinear(Linear):
    """A `Linear` with a frozen weight of unchanged name, and an adapter."""

    def __init__(self, base: Linear, config: LoraConfig) -> None:
        inputs, outputs = base.in_features, base.out_features
        with torch.device("meta"):  # allocates and draws nothing: the weight is the base's
            super().__init__(inputs, outputs)
            self.lora_A, self.lora_B = Linear(inputs, config.rank), Linear(config.rank, outputs)
        self.weight = base.weight
        self.scale, self.dropout = config.scaling, config.dropout
        for part in self.lora_A, self.lora_B:
            part.weight = nn.Parameter(base.weight.new_empty(part.weight.shape))
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ plus the adapter's update."""
        x_in = F.dropout(x, self.dropout, self.training) if self.dropout else x
        # scaled where there are fewest values
        update: Tensor = self.lora_B(self.scale * self.lora_A(x_in))
        return super().forward(x) + update


def add_lora(model: GPT, config: LoraConfig) -> None:
    """Freeze the model and add adapters to the config's target modules, in place.

    A is drawn from torch's global generator, on the device and in the dtype of the weights.
    Call it once, before `compile_blocks`, FSDP or DDP.
    """
    assert config.rank, "an adapter needs a rank"
    model.requires_grad_(False)
    model.uses_rng = config.dropout > 0
    for part in list(model.model.layers.modules()):
        for name, layer in list(part.named_children()):
            if name in config.target_modules:
                assert type(layer) is Linear, f"{name} is a {type(layer).__name__}"
                setattr(part, name, LoraLinear(layer, config))


@torch.no_grad()
def merge_lora(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Return the tensors of a plain GPT from the unsharded ones of a model with adapters.

    Updates are computed in fp32 and added to a copy in the dtype of the weight; tensors without
    an adapter are returned unchanged.
    """
    merged = {}
    for name, weight in tensors.items():
        layer = name.removesuffix("weight")
        if f"{layer}{LORA_A}" in tensors:
            a, b = tensors[f"{layer}{LORA_A}"].float(), tensors[f"{layer}{LORA_B}"].float()
            merged[name] = torch.addmm(weight.float(), b, a, alpha=config.scaling).to(weight.dtype)
        elif not name.endswith((LORA_A, LORA_B)):
            merged[name] = weight
    return merged
