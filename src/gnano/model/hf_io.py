"""Model folders in Hugging Face's format: `config.json` and weights.

gnano writes `model.safetensors`, which transformers, vLLM and llama.cpp's converter read unchanged.
Read are also shards with an index and PyTorch's files, the names that wrappers change
(`module.…`), rotary frequencies, and a tied head that is stored or left out. Nothing in a folder
is trusted: no code is run, shapes are checked against the config before a weight is used, and an
index cannot name files outside the folder.
"""

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gnano.config.hf_config import read_hf_config, write_hf_config
from gnano.config.model_config import ModelConfig
from gnano.model.transformer import GPT
from gnano.utils.files import dump_json, read_text
from gnano.utils.validation import require_agreement

WEIGHTS_NAME = "model.safetensors"
WEIGHT_NAMES = (WEIGHTS_NAME, "pytorch_model.bin")  # in the order of transformers
ROPE_BUFFER_SUFFIX = "rotary_emb.inv_freq"  # in older files; readers compute it themselves
LM_HEAD_KEY, EMBEDDING_KEY = "lm_head.weight", "model.embed_tokens.weight"
STATE_DICT_WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys in a training file
WRAPPER_PREFIXES = ("_orig_mod.", "module.")  # torch.compile's and DDP's
MODEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def save_model(
    model: GPT, folder: Path, eos_token_id: int, base_files: Mapping[str, bytes] | None = None
) -> None:
    """Write config, generation defaults and weights, in the dtype of the weights."""
    save_config(model.config, model.lm_head.weight.dtype, folder, eos_token_id, base_files)
    save_tensors(dict(model.state_dict()), folder / WEIGHTS_NAME)


def save_config(
    config: ModelConfig,
    dtype: torch.dtype,
    folder: Path,
    eos_token_id: int,
    base_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write `config.json` and `generation_config.json`, for weights of this dtype.

    `base_files` are the files of another family's model by name: its fields are kept.
    """
    named = str(dtype).removeprefix("torch.")
    precision = {"dtype": named, "torch_dtype": named}  # transformers before 4.56 reads the latter
    ends = {"bos_token_id": eos_token_id, "eos_token_id": eos_token_id}
    shape = write_hf_config(config)
    contents: dict[str, Any] = {
        "config.json": {**shape, **ends, **precision},
        "generation_config.json": {**ends, "do_sample": True},
    }
    for name, base_content in (base_files or {}).items():
        if name in contents:
            own = {**shape, **precision} if name == "config.json" else {}
            contents[name] = {**json.loads(base_content), **own}
    for name, content in contents.items():
        (folder / name).write_text(dump_json(content, indent=2) + "\n", "utf-8")


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
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
    try:
        return read_hf_config(content)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


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

    Raises FileNotFoundError or ValueError for a folder without a complete model of a known family.
    """
    config = load_config(folder)
    with torch.device("meta"):  # without memory for parameters
        model = GPT.from_config(config)
    weights = load_tensors(folder, config, device)
    model.to_empty(device=device).to(weights[EMBEDDING_KEY].dtype)
    model.load_state_dict(weights)
    return model


def load_parameters(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
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
) -> dict[str, Tensor]:
    """Return the tensors of a model folder under Hugging Face's names, all in one dtype.

    On a CPU safetensors are memory-mapped and read when they are used. Raises FileNotFoundError or
    ValueError for a folder that holds no model of this shape.
    """
    tensors: dict[str, Tensor] = {}
    files = find_weight_files(folder)
    for file, listed in files.items():
        if file.suffix == ".safetensors":
            try:
                found = load_file(file, device=str(device))
            except SafetensorError as error:
                raise ValueError(f"{file} is damaged or incomplete ({error}).") from None
        else:
            found, _ = load_pickle(file)
        if listed and (wrong := sorted(listed ^ found.keys())):
            holds = "holds" if wrong[0] in found else "does not hold"
            raise ValueError(
                f"{file} {holds} {wrong[0]}, but the index in its folder differs; copy both again."
            )
        tensors |= found
    tensors = clean_tensors(tensors, config, file if len(files) == 1 else folder)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def find_weight_files(folder: Path) -> dict[Path, set[str]]:
    """Map each weight file of a folder to its tensor names, as far as an index lists them."""
    for single in WEIGHT_NAMES:
        if (folder / single).is_file():
            return {folder / single: set()}
        index = folder / f"{single}.index.json"
        if not index.is_file():
            continue
        listed = read_json_object(index).get("weight_map")
        if not isinstance(listed, dict):
            raise ValueError(f"{index} lists no files (weight_map).")
        files: dict[Path, set[str]] = {}
        for tensor, name in listed.items():
            if Path(str(name)).name != name or not name.endswith(Path(single).suffix):
                raise ValueError(f"{index} names {name!r}, which is not a file in its folder.")
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}, which its index names.")
            files.setdefault(folder / name, set()).add(tensor)
        return files
    raise FileNotFoundError(
        f"{folder} is not a model folder: it has neither {' nor '.join(WEIGHT_NAMES)}, nor shards "
        f"with an index."
    )


def load_pickle(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return a PyTorch file's tensors without running code in it, and the metadata beside them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about bytes that are not tensors
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError:  # its message explains how to run the code in the file
        raise ValueError(
            f"{path} holds something other than tensors, or is damaged, and was not opened, since "
            f"that could run code; save only a state dict, or use safetensors."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a PyTorch file, or is truncated ({reason}).") from None
    for wrapper in STATE_DICT_WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds {type(content).__name__} and not a state dict.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{path} holds {name!r}, which is not a tensor: save only tensors.")
    # a stride of 0 makes a few bytes a large matrix
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in content.values())
    if claimed > 2 * path.stat().st_size:
        size = path.stat().st_size
        raise ValueError(f"{path} claims more numbers than its {size:,} bytes hold.")
    return dict(content), getattr(content, "_metadata", None)


def strip_wrappers(name: str) -> str:
    """Return a tensor's name without what torch.compile and DDP put before it."""
    for prefix in WRAPPER_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def clean_tensors(
    tensors: Mapping[str, Tensor], config: ModelConfig, path: Path
) -> dict[str, Tensor]:
    """Return a model's tensors under their usual names, checked, in the embedding's dtype.

    `path` is for messages. Raises ValueError, naming a tensor, where they do not match the shape.
    """
    named = {}
    for name, tensor in tensors.items():
        name = strip_wrappers(name)
        if not name.endswith(ROPE_BUFFER_SUFFIX):
            named[name] = tensor
    embedding = named.get(EMBEDDING_KEY)
    if config.tie_embeddings and embedding is not None:
        head = named.pop(LM_HEAD_KEY, embedding)
        if head is not embedding and not torch.equal(head, embedding):
            raise ValueError(
                f"{path} sets tie_word_embeddings = True, but its {LM_HEAD_KEY} is not its "
                f"{EMBEDDING_KEY}; correct the one that is wrong."
            )
    check_model_tensors(named, config, path)
    assert embedding is not None
    return {name: tensor.to(embedding.dtype).contiguous() for name, tensor in named.items()}


def check_model_tensors(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
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


def find_shape_mismatch(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return the first difference in names and shapes as text; "" if there is none."""
    for name in sorted(expected.keys() | tensors.keys()):
        found = list(tensors[name].shape) if name in tensors else "missing"
        needed = list(expected[name].shape) if name in expected else "absent"
        if found != needed:
            return f"tensor {name} is {found} and must be {needed}"
    return ""
