"""How does a model learn in a fraction of its weights? Each matrix gets a change of low rank.

    y = x Wᵀ + alpha / rank · x Aᵀ Bᵀ        W [out, in] is frozen
                                             A [rank, in], B [out, rank] learn

B begins as zero, so the model is at first exactly the base. What was learned can be added to
the matrices (`merged`), and then costs nothing when the model runs.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685; A is drawn as PEFT draws it.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.config.model_config import LoraConfig
from gnano.model.layers import Linear
from gnano.model.transformer import GPT

LORA_A, LORA_B = "lora_A.weight", "lora_B.weight"  # an adapter's parameters in a layer


class LoraLinear(Linear):
    """A `Linear` whose own weight is frozen and keeps its name, with an adapter beside it."""

    def __init__(self, base: Linear, config: LoraConfig) -> None:
        outputs, inputs = base.weight.shape
        with torch.device("meta"):  # neither takes room nor draws: the weight is the base's
            super().__init__(inputs, outputs, base.init_std)
            self.lora_A, self.lora_B = Linear(inputs, config.rank), Linear(config.rank, outputs)
        self.weight = base.weight
        self.scale, self.dropout = config.scaling, config.dropout
        for part in self.lora_A, self.lora_B:
            part.weight = nn.Parameter(base.weight.new_empty(part.weight.shape))
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        x_in = F.dropout(x, self.dropout, self.training) if self.dropout else x
        # scaled where it is narrow
        change: Tensor = self.lora_B(self.scale * self.lora_A(x_in))
        return super().forward(x) + change


def add_lora(model: GPT, config: LoraConfig) -> None:
    """Freeze the model, and give the layers that the config names an adapter, in place.

    A is drawn from torch's global generator, on the device and in the dtype of the weights.
    To be called once, before `compile_blocks`, FSDP or DDP.
    """
    assert config.rank, "an adapter has a rank"
    model.requires_grad_(False)
    model.uses_rng = config.dropout > 0
    for part in list(model.model.layers.modules()):
        for name, layer in list(part.named_children()):
            if name in config.target_modules:
                assert type(layer) is Linear, f"{name} is a {type(layer).__name__}"
                setattr(part, name, LoraLinear(layer, config))


@torch.no_grad()
def merge_lora(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Whole tensors by the names of such a model's parameters -> those of a plain GPT.

    Changes are computed in fp32 and added to a copy, which has the dtype of its weight; what
    no adapter changes is returned as it is.
    """
    plain = {}
    for name, weight in tensors.items():
        layer = name.removesuffix("weight")
        if f"{layer}{LORA_A}" in tensors:
            a, b = tensors[f"{layer}{LORA_A}"].float(), tensors[f"{layer}{LORA_B}"].float()
            plain[name] = torch.addmm(weight.float(), b, a, alpha=config.scaling).to(weight.dtype)
        elif not name.endswith((LORA_A, LORA_B)):
            plain[name] = weight
    return plain
