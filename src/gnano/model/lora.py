"""LoRA: frozen matrices with trainable low-rank updates, and adapter folders in PEFT's format.

    y = x Wᵀ + alpha / rank · x Aᵀ Bᵀ        W [out, in] is frozen
                                             A [rank, in], B [out, rank] are trained

B starts as zero, so the model is initially exactly the base. `merge_lora` adds the updates to the
matrices, after which they cost nothing. PEFT, vLLM and llama.cpp's converter read the folders
(`adapter_config.json`, `adapter_model.safetensors`) unchanged. PEFT's adapters are read as far as
their computation is supported; as with model folders, nothing is trusted and nothing unpickled.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685; A is initialized as in PEFT.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gnano.config.model_config import TARGET_MODULES, LoraConfig, ModelConfig
from gnano.model.hf_io import find_shape_mismatch, read_json_object, save_tensors
from gnano.model.transformer import GPT, Linear
from gnano.utils.files import dump_json

LORA_A, LORA_B = "lora_A.weight", "lora_B.weight"  # names within a layer
ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."  # PEFT's two wrappers around the model
LORA_TENSOR_PATTERN = re.compile(
    rf"{re.escape(PEFT_PREFIX)}(model\.layers\.\d+\.(?:self_attn|mlp)\.(?:{'|'.join(TARGET_MODULES)})"
    rf"\.(?:{re.escape(LORA_A)}|{re.escape(LORA_B)}))"
)
# keys that do not change the computation of an adapter, or are checked one by one. Any other key
# with a value (DoRA, additional weights, …) is refused, future ones too
SUPPORTED_KEYS = {
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config"),
    *("exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision"),
    *("runtime_config", "task_type"),
    *("bias", "init_lora_weights", "lora_alpha", "lora_dropout", "peft_type", "r"),
    *("target_modules", "use_rslora"),
}
ADAPTER_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_VALUE = 1e30  # larger ranks and scales are errors
SUPPORTED_INITS = (None, True, False, "gaussian", "eva", "orthogonal")  # the others change the base


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


def save_adapter(
    tensors: Mapping[str, Tensor], config: LoraConfig, base_model: str, folder: Path
) -> None:
    """Write the adapter tensors, selected by our parameter names, to a folder.

    `base_model` is the path or Hub name of the base that readers of the adapter load.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    settings = json.loads(Path(__file__).with_name(ADAPTER_CONFIG_NAME).read_text("utf-8")) | {
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.target_modules),
    }
    (folder / ADAPTER_CONFIG_NAME).write_text(dump_json(settings, indent=2) + "\n", "utf-8")
    named = {
        f"{PEFT_PREFIX}{name}": tensor.detach().contiguous()
        for name, tensor in tensors.items()
        if name.endswith((LORA_A, LORA_B))
    }
    save_tensors(named, folder / ADAPTER_WEIGHTS_NAME)


def load_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return the adapter of a folder, on the CPU, under our parameter names.

    Raises FileNotFoundError or ValueError for a folder that is not a complete LoRA adapter of a
    Llama, or that needs unsupported computation.
    """
    content = read_json_object(folder / ADAPTER_CONFIG_NAME, "an adapter")
    rank, alpha, dropout = _parse_adapter_config(content, folder / ADAPTER_CONFIG_NAME)
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {ADAPTER_WEIGHTS_NAME}. Other formats are not read, since unpickling "
            f"can run any code; save the adapter as safetensors."
        )
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}).") from None
    tensors = {}
    for stored_name, tensor in stored.items():
        match = LORA_TENSOR_PATTERN.fullmatch(stored_name)
        if match is None:
            raise ValueError(f"{path} contains {stored_name}, which is not part of a Llama's LoRA.")
        name = match[1]
        if tensor.dim() != 2 or tensor.shape[0 if name.endswith(LORA_A) else 1] != rank:
            raise ValueError(
                f"{path}: {name} is {list(tensor.shape)}, but {ADAPTER_CONFIG_NAME} has "
                f"r = {rank}; the two files belong to different adapters."
            )
        if tensor.dtype not in ADAPTER_DTYPES or not tensor.isfinite().all():
            raise ValueError(
                f"{path}: {name} has values that are not finite floating-point numbers."
            )
        tensors[name] = tensor
    for name in tensors:
        layer = name.removesuffix(LORA_A).removesuffix(LORA_B)
        if not {f"{layer}{LORA_A}", f"{layer}{LORA_B}"} <= tensors.keys():
            raise ValueError(f"{path} has {name} without the other matrix of its pair.")
    found = {name.split(".")[-3] for name in tensors}
    targets = content.get("target_modules")
    # targets may be a pattern, for which the file has the layers that it matched
    named = {str(t).rsplit(".", 1)[-1] for t in targets} if isinstance(targets, list) else found
    if not found or named != found:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG_NAME} has target_modules = {json.dumps(targets)}, but "
            f"{ADAPTER_WEIGHTS_NAME} has tensors of {', '.join(sorted(found)) or 'none'}: the "
            f"adapter is incomplete."
        )
    layers = tuple(layer for layer in TARGET_MODULES if layer in found)
    return LoraConfig(rank=rank, alpha=alpha, dropout=dropout, target_modules=layers), tensors


def check_adapter_shape(
    tensors: Mapping[str, Tensor], config: LoraConfig, model_config: ModelConfig
) -> None:
    """Raise ValueError, naming a tensor, unless they adapt all blocks of this shape."""
    with torch.device("meta"):
        model = GPT.from_config(model_config)
        add_lora(model, config)
    adapter = {n: p for n, p in model.named_parameters() if n.endswith((LORA_A, LORA_B))}
    if mismatch := find_shape_mismatch(tensors, adapter):
        raise ValueError(
            f"The adapter does not fit the base model: {mismatch}; use the model that it was "
            f"trained on."
        )


def _parse_adapter_config(content: dict[str, Any], path: Path) -> tuple[int, float, float]:
    """Return rank, alpha and dropout; raises ValueError for unsupported settings."""

    def invalid(key: str, reason: str) -> ValueError:
        return ValueError(f"{path} has {key} = {json.dumps(content.get(key))[:60]}; {reason}.")

    if content.get("peft_type") != "LORA":
        raise invalid("peft_type", "only LORA is supported")
    if content.get("bias", "none") not in ("none", None):
        raise invalid("bias", "adapters with biases are not supported")
    if content.get("init_lora_weights") not in SUPPORTED_INITS:
        raise invalid("init_lora_weights", "this changes the base too, which is not supported")
    for key in sorted(content.keys() - SUPPORTED_KEYS):
        if content[key]:
            raise invalid(key, "only plain LoRA is supported")
    rank: Any = content.get("r")
    if type(rank) is not int or not 1 <= rank < MAX_VALUE:
        raise invalid("r", "it must be a whole number of at least 1")
    alpha: Any = content.get("lora_alpha")
    if type(alpha) not in (int, float) or not 0 < alpha < MAX_VALUE:
        raise invalid("lora_alpha", "it must be a number above 0")
    dropout: Any = content.get("lora_dropout", 0.0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise invalid("lora_dropout", "it must be a number in [0, 1)")
    if content.get("use_rslora"):  # alpha / √rank (Kalajdzievski 2023): another scale
        alpha *= math.sqrt(rank)
    return rank, float(alpha), float(dropout)
