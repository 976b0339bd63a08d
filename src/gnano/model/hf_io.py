"""Model folders in Hugging Face's format: `config.json` and `model.safetensors`.

transformers, vLLM and llama.cpp's converter read them unchanged. Nothing in a folder is trusted:
shapes are checked against the config before a weight is used, and nothing is unpickled.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gnano.config.model_config import ModelConfig
from gnano.model.transformer import GPT
from gnano.utils.files import dump_json, read_text
from gnano.utils.validation import require_agreement

WEIGHTS_NAME = "model.safetensors"
PICKLE_WEIGHTS_NAME = "pytorch_model.bin"
SHARD_INDEX_NAMES = {
    WEIGHTS_NAME: f"{WEIGHTS_NAME}.index.json",
    PICKLE_WEIGHTS_NAME: f"{PICKLE_WEIGHTS_NAME}.index.json",
}
ROPE_BUFFER_SUFFIX = "rotary_emb.inv_freq"  # in older files; readers compute it themselves
MODEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def save_model(model: GPT, folder: Path, eos_token_id: int) -> None:
    """Write config, generation defaults and weights, in the dtype of the weights."""
    save_config(model.config, model.lm_head.weight.dtype, folder, eos_token_id)
    save_tensors(dict(model.state_dict()), folder / WEIGHTS_NAME)


def save_config(config: ModelConfig, dtype: torch.dtype, folder: Path, eos_token_id: int) -> None:
    """Write `config.json` and `generation_config.json`, for weights of this dtype."""
    named = str(dtype).removeprefix("torch.")
    precision = {"dtype": named, "torch_dtype": named}  # transformers before 4.56 reads the latter
    ends = {"bos_token_id": eos_token_id, "eos_token_id": eos_token_id}
    contents = {
        "config.json": {**config.to_hf(), **ends, **precision},
        "generation_config.json": {**ends, "do_sample": True},
    }
    for name, content in contents.items():
        (folder / name).write_text(dump_json(content, indent=2) + "\n", "utf-8")


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file; raises OSError with its number if that fails."""
    try:
        save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None
    path.chmod(0o644)  # safetensors makes files that only the owner can read


def load_config(folder: Path) -> ModelConfig:
    """Read the shape of the model in a folder; raises FileNotFoundError or ValueError."""
    content = read_json_object(folder / "config.json")
    if content.get("tie_word_embeddings"):
        raise ValueError(
            f"{folder}: config.json has tie_word_embeddings = True, and only untied models are "
            f"supported: {_import_advice(folder)}."
        )
    try:
        return ModelConfig.from_hf(content)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _import_advice(folder: Path) -> str:
    return f"convert it (gnano import {shlex.quote(str(folder))} --out DIR)"


def read_json_object(path: Path, folder_kind: str = "a model folder") -> dict[str, Any]:
    """Return the object in a JSON file; raises FileNotFoundError or ValueError if there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not {folder_kind}: it has no {path.name}.")
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object but {str(content)[:40]!r}.")
    return content


def load_model(folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Load the model of a folder, in the dtype of its weights.

    Raises FileNotFoundError or ValueError for a folder that is not a complete Llama model.
    """
    config = load_config(folder)
    with torch.device("meta"):  # without memory for parameters
        model = GPT.from_config(config)
    weights = load_tensors(folder, config, device)
    dtype = next(iter(weights.values())).dtype
    model.to_empty(device=device).to(dtype)
    model.load_state_dict(weights)
    return model


def load_parameters(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Load the parameters of a model of this shape on the CPU, with the head's padding.

    Raises FileNotFoundError or ValueError for a folder that holds no such model.
    """
    # RoPE's base and the norms' epsilon change no tensor's shape, so they are compared here
    stored = replace(load_config(folder), dropout=config.dropout)
    place = f"that of {folder / 'config.json'}"
    for name, value in vars(config).items():
        require_agreement(f"model.{name}", {"the recipe's": value, place: getattr(stored, name)})
    with torch.device("meta"):
        model = GPT.from_config(config)
    model.load_state_dict(load_tensors(folder, config), assign=True)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def load_tensors(
    folder: Path, config: ModelConfig, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the tensors of a model folder as stored, under Hugging Face's names.

    On a CPU they are memory-mapped and read when they are used. Raises FileNotFoundError or
    ValueError for a folder that holds no model of this shape.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        names = (PICKLE_WEIGHTS_NAME, *SHARD_INDEX_NAMES.values())
        others = [f", but {n}: {_import_advice(folder)}" for n in names if (folder / n).is_file()]
        other = next(iter(others), "")
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {WEIGHTS_NAME}{other}.")
    try:
        tensors = load_file(path)  # memory-mapped: nothing is read yet
        if any(name.endswith(ROPE_BUFFER_SUFFIX) for name in tensors):
            raise ValueError(
                f"{path} contains rotary frequencies, which are not weights: "
                f"{_import_advice(folder)}."
            )
        check_model_tensors(tensors, config, path)
        return tensors if str(device) == "cpu" else load_file(path, device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}).") from None


def check_model_tensors(
    tensors: Mapping[str, torch.Tensor], config: ModelConfig, path: Path
) -> None:
    """Raise ValueError, naming a tensor, unless these are a floating-point model of this shape."""
    with torch.device("meta"):
        expected = GPT.from_config(config).state_dict()
    if mismatch := find_shape_mismatch(tensors, expected):
        raise ValueError(f"{path} does not have the shape of its config: {mismatch}.")
    for name, tensor in tensors.items():
        if tensor.dtype not in MODEL_DTYPES:
            raise ValueError(
                f"{path}: tensor {name} is {str(tensor.dtype).removeprefix('torch.')}; "
                f"convert it to fp32, bf16 or fp16."
            )


def find_shape_mismatch(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> str:
    """Return the first difference in names and shapes as text; "" if there is none."""
    for name in sorted(expected.keys() | tensors.keys()):
        found = list(tensors[name].shape) if name in tensors else "missing"
        needed = list(expected[name].shape) if name in expected else "absent"
        if found != needed:
            return f"tensor {name} is {found} and must be {needed}"
    return ""
