"""Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

PEFT, vLLM and llama.cpp's converter read them unchanged. Adapters of PEFT are read here as far as
their computation is supported. As with model folders, nothing is trusted and nothing unpickled.
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
from gnano.model.hf_io import find_shape_mismatch, read_json_object, save_tensors
from gnano.model.lora import LORA_A, LORA_B, add_lora
from gnano.model.transformer import GPT
from gnano.utils.files import dump_json

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


def save_adapter(
    tensors: Mapping[str, Tensor], config: LoraConfig, base_model: str, folder: Path
) -> None:
    """Write the adapter tensors, selected by our parameter names, to a folder.

    `base_model` is the path or Hub name of the base that readers of the adapter load.
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
    for name, tensor in stored.items():
        match = LORA_TENSOR_PATTERN.fullmatch(name)
        if match is None:
            raise ValueError(f"{path} contains {name}, which is not part of a Llama's LoRA.")
        _check_lora_tensor(match[1], tensor, rank, path)
        tensors[match[1]] = tensor
    found = {name.split(".")[-3] for name in tensors}
    _check_complete(content.get("target_modules"), found, tensors, folder)
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


def _check_lora_tensor(name: str, tensor: Tensor, rank: int, path: Path) -> None:
    if tensor.dim() != 2 or tensor.shape[0 if name.endswith(LORA_A) else 1] != rank:
        raise ValueError(
            f"{path}: {name} is {list(tensor.shape)}, but {ADAPTER_CONFIG_NAME} has r = {rank}; "
            f"the two files belong to different adapters."
        )
    if tensor.dtype not in ADAPTER_DTYPES or not tensor.isfinite().all():
        raise ValueError(f"{path}: {name} has values that are not finite floating-point numbers.")


def _check_complete(
    targets: object, found: set[str], tensors: Mapping[str, Tensor], folder: Path
) -> None:
    """Raise ValueError for an adapter with missing tensors."""
    for name in tensors:
        layer = name.removesuffix(LORA_A).removesuffix(LORA_B)
        if not {f"{layer}{LORA_A}", f"{layer}{LORA_B}"} <= tensors.keys():
            raise ValueError(
                f"{folder / ADAPTER_WEIGHTS_NAME} has {name} without the other matrix of its pair."
            )
    named = found  # targets may be a pattern; the file has the layers that it matched
    if isinstance(targets, list):
        named = {str(target).rsplit(".", 1)[-1] for target in targets}
    if not found or named != found:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG_NAME} has target_modules = {json.dumps(targets)}, but "
            f"{ADAPTER_WEIGHTS_NAME} has tensors of {', '.join(sorted(found)) or 'none'}: the "
            f"adapter is incomplete."
        )
