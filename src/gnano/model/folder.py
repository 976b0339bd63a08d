"""A model on disk is a Hugging Face folder: `config.json` and `model.safetensors`.

`transformers`, vLLM and llama.cpp's converter open it as it is. Nothing in it is trusted:
shapes are checked against the config before a weight is used, and nothing is unpickled.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from gnano.model.config import ModelConfig
from gnano.model.gpt import GPT

WEIGHTS = "model.safetensors"


def save_model(model: GPT, folder: Path, end_of_text: int) -> None:
    """Write config, generation defaults and weights, in the dtype that the weights have."""
    write_config(model.config, model.lm_head.weight.dtype, folder, end_of_text)
    save_tensors(dict(model.state_dict()), folder / WEIGHTS)


def write_config(config: ModelConfig, dtype: torch.dtype, folder: Path, end_of_text: int) -> None:
    """Write `config.json` and `generation_config.json`, for weights of this dtype."""
    named = str(dtype).removeprefix("torch.")
    precision = {"dtype": named, "torch_dtype": named}  # before transformers 4.56: the latter
    ends = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    _write_json(folder / "config.json", {**config.to_hf(), **ends, **precision})
    _write_json(folder / "generation_config.json", {**ends, "do_sample": True})


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, about: dict[str, str] | None = None
) -> None:
    """Write a safetensors file; a write that fails is the OSError that it is."""
    try:
        save_file(tensors, path, metadata={"format": "pt", **(about or {})})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None
    path.chmod(0o644)  # safetensors writes for the owner alone; a model is there to be read


def read_config(folder: Path) -> ModelConfig:
    content = read_json(folder / "config.json")
    try:
        return ModelConfig.from_hf(content)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises FileNotFoundError or ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a model folder: it has no {path.name}.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object but {str(content)[:40]!r}.")
    return content


def load_model(folder: Path, device: torch.device | str = "cpu") -> GPT:
    """The model of a folder, in the dtype of its weights.

    Raises FileNotFoundError or ValueError, in a sentence, for a folder that is not a whole
    Llama model.
    """
    config = read_config(folder)
    with torch.device("meta"):
        model = GPT.from_config(config)
    weights = _read_weights(folder / WEIGHTS, model, device)
    dtype = next(iter(weights.values())).dtype
    model.to_empty(device=device).to(dtype)
    model.load_state_dict(weights)
    return model


def read_weights(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The parameters of a model of this shape as they are while it runs, on the CPU.

    Raises FileNotFoundError or ValueError for a folder that holds no such model.
    """
    with torch.device("meta"):
        model = GPT.from_config(config)
    model.load_state_dict(_read_weights(folder / WEIGHTS, model, "cpu"), assign=True)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def read_tensors(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The tensors of a model folder as they lie in it, under Hugging Face's names.

    They are read from the disk when they are used, so what is not used takes no memory. Raises
    FileNotFoundError or ValueError for a folder that holds no model of this shape.
    """
    with torch.device("meta"):
        model = GPT.from_config(config)
    return _read_weights(folder / WEIGHTS, model, "cpu")


def _read_weights(path: Path, model: GPT, device: torch.device | str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a model folder: it has no {WEIGHTS}.")
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ValueError(
                    f"{path} does not fit its config.json: tensor {name} has shape "
                    f"{found.get(name, 'missing')}, expected {expected.get(name, 'none such')}."
                )
        return load_file(path, device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}).") from None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
