"""An adapter on disk is a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.

PEFT, vLLM and llama.cpp's converter open it as it is, and what PEFT wrote is read here, as far
as it can be computed here. As with a model's folder nothing is trusted and nothing unpickled.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gnano.config.model_config import TARGET_MODULES, LoraConfig, ModelConfig
from gnano.model.hf_io import read_json_object, save_tensors
from gnano.model.lora import LORA_A, LORA_B, add_lora
from gnano.model.transformer import GPT
from gnano.utils.text import dump_json

ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."  # PEFT's two wrappers around the model
LORA_TENSOR_PATTERN = re.compile(
    rf"{re.escape(PEFT_PREFIX)}(model\.layers\.\d+\.(?:self_attn|mlp)\.(?:{'|'.join(TARGET_MODULES)})"
    rf"\.(?:{re.escape(LORA_A)}|{re.escape(LORA_B)}))"
)
# what does not change how an adapter is computed, or is looked at by itself. Any other key that
# asks for something (DoRA, weights beside the adapter, …) is refused, also one not yet invented
SUPPORTED_KEYS = {
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config"),
    *("exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision"),
    *("runtime_config", "task_type"),
    *("bias", "init_lora_weights", "lora_alpha", "lora_dropout", "peft_type", "r"),
    *("target_modules", "use_rslora"),
}
ADAPTER_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_VALUE = 1e30  # what is beyond it is no rank and no scale
SUPPORTED_INITS = (None, True, False, "gaussian", "eva", "orthogonal")  # the others change the base


def save_adapter(
    tensors: Mapping[str, Tensor], config: LoraConfig, base_model: str, folder: Path
) -> None:
    """Write the adapter among the tensors, which have the names of our parameters.

    `base` tells its readers where the model lies that it changes. Makes `folder` if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / ADAPTER_CONFIG_NAME).write_text(dump_json(settings, indent=2) + "\n", "utf-8")
    named = {
        f"{PEFT_PREFIX}{name}": tensor.detach().contiguous()
        for name, tensor in tensors.items()
        if name.endswith((LORA_A, LORA_B))
    }
    save_tensors(named, folder / ADAPTER_WEIGHTS_NAME)


def load_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The adapter of a folder, on the CPU, by the names of our parameters.

    Raises FileNotFoundError or ValueError, in a sentence, for a folder that is not a whole
    LoRA adapter of a Llama, or one that asks for what is not here.
    """
    content = read_json_object(folder / ADAPTER_CONFIG_NAME, "an adapter")
    rank, alpha, dropout = _parse_adapter_config(content, folder / ADAPTER_CONFIG_NAME)
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {ADAPTER_WEIGHTS_NAME}; another format would have to be unpickled, which may run "
            f"anything, so save the adapter as safetensors."
        )
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}).") from None
    tensors = {}
    for name, tensor in stored.items():
        known = LORA_TENSOR_PATTERN.fullmatch(name)
        if known is None:
            raise ValueError(f"{path} holds {name}, which is no part of a Llama's LoRA.")
        tensors[known[1]] = tensor
    for name, tensor in tensors.items():
        _check_lora_tensor(name, tensor, rank, path)
    found = {name.split(".")[-3] for name in tensors}
    _check_complete(content.get("target_modules"), found, tensors, folder)
    layers = tuple(layer for layer in TARGET_MODULES if layer in found)
    return LoraConfig(rank=rank, alpha=alpha, dropout=dropout, target_modules=layers), tensors


def check_adapter_shape(
    tensors: Mapping[str, Tensor], config: LoraConfig, model_config: ModelConfig
) -> None:
    """Raises ValueError, naming a tensor, where they are no adapter of all blocks of this shape."""
    with torch.device("meta"):
        model = GPT.from_config(model_config)
        add_lora(model, config)
    expected = {
        name: p.shape for name, p in model.named_parameters() if name.endswith((LORA_A, LORA_B))
    }
    for name in sorted(expected.keys() | tensors.keys()):
        wanted = list(expected[name]) if name in expected else "none such"
        given = list(tensors[name].shape) if name in tensors else "missing"
        if wanted != given:
            raise ValueError(
                f"The adapter does not fit the base model: tensor {name} is {given} and ought to "
                f"be {wanted}; give the model that it was made for."
            )


def _parse_adapter_config(content: dict[str, Any], path: Path) -> tuple[int, float, float]:
    """Return rank, alpha and dropout; ValueError for settings with another computation."""

    def refuse(key: str, needed: str) -> ValueError:
        return ValueError(f"{path} says {key} = {json.dumps(content.get(key))[:60]}; {needed}.")

    if content.get("peft_type") != "LORA":
        raise refuse("peft_type", "only LORA is here")
    if content.get("bias", "none") not in ("none", None):
        raise refuse("bias", "only adapters without biases are here")
    if content.get("init_lora_weights") not in SUPPORTED_INITS:
        raise refuse("init_lora_weights", "that changes the base too, and only adapters are here")
    for key in sorted(content.keys() - SUPPORTED_KEYS):
        if content[key]:
            raise refuse(key, "only plain LoRA is here, which has no such thing")
    rank: Any = content.get("r")
    if type(rank) is not int or not 1 <= rank < MAX_VALUE:
        raise refuse("r", "it must be a whole number of at least 1")
    alpha: Any = content.get("lora_alpha")
    if type(alpha) not in (int, float) or not 0 < alpha < MAX_VALUE:
        raise refuse("lora_alpha", "it must be a number above 0")
    dropout: Any = content.get("lora_dropout", 0.0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise refuse("lora_dropout", "it must be a number in [0, 1)")
    if content.get("use_rslora"):  # alpha / √rank (Kalajdzievski 2023): only another scale
        alpha *= math.sqrt(rank)
    return rank, float(alpha), float(dropout)


def _check_lora_tensor(name: str, tensor: Tensor, rank: int, path: Path) -> None:
    narrow = 0 if name.endswith(LORA_A) else 1  # the dimension that is the rank
    if tensor.dim() != 2 or tensor.shape[narrow] != rank:
        raise ValueError(
            f"{path}: {name} is {list(tensor.shape)}, where {ADAPTER_CONFIG_NAME} says r = {rank}: one of the "
            f"two files is not this adapter's."
        )
    if tensor.dtype not in ADAPTER_DTYPES or not tensor.isfinite().all():
        raise ValueError(f"{path}: {name} has values that are no finite floating-point numbers.")


def _check_complete(
    targets: object, found: set[str], tensors: Mapping[str, Tensor], folder: Path
) -> None:
    """Raise ValueError for an adapter that has lost tensors: the rest would be applied alone."""
    for name in tensors:
        layer = name.removesuffix(LORA_A).removesuffix(LORA_B)
        if not {f"{layer}{LORA_A}", f"{layer}{LORA_B}"} <= tensors.keys():
            raise ValueError(
                f"{folder / ADAPTER_WEIGHTS_NAME} has {name} without the other half of its pair."
            )
    named = found  # targets may be a pattern: the layers it matched are in the file
    if isinstance(targets, list):
        named = {str(target).rsplit(".", 1)[-1] for target in targets}
    if not found or named != found:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG_NAME} says target_modules = {json.dumps(targets)}, but {ADAPTER_WEIGHTS_NAME} has "
            f"tensors of {', '.join(sorted(found)) or 'none'}: the adapter is not whole."
        )
