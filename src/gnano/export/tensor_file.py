"""Reads a bare tensor file: the published checkpoint, or a file that `gnano export` wrote.

Its tensors do not state the number of heads, nor always the context. The command's options, the
file's metadata and the rotary angles of the published file (`freqs_cis` [T, E/2]) must agree;
what none of them states is taken from a preset with the same matrices, or from the reference model.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.config.model_config import MAX_DIMENSION, PRESETS, ModelConfig
from gnano.export.formats import CONFIG_METADATA_KEY
from gnano.export.imported_model import ImportedModel, check_and_unify_tensors, load_tokenizer_for
from gnano.model.tensor_names import convert_from_published
from gnano.utils.validation import Range, check_field_ranges, require_agreement

ROPE_ANGLES_KEY = "freqs_cis"
STATE_DICT_WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys in a training file
WRAPPER_PREFIXES = ("_orig_mod.", "module.")  # torch.compile's and DDP's


@dataclass(frozen=True, kw_only=True)
class TensorFileHints:
    """Facts that a tensor file does not have to state."""

    n_head: Annotated[int | None, Range(1, MAX_DIMENSION)] = None  # query heads
    block_size: Annotated[int | None, Range(2, MAX_DIMENSION)] = None  # context, in tokens
    rope_theta: Annotated[float | None, Range(1)] = None
    norm_eps: Annotated[
        float | None, Range(0, 1, exclusive_minimum=True, exclusive_maximum=True)
    ] = None

    def __post_init__(self) -> None:
        check_field_ranges(self)


def read_tensor_file_model(
    path: Path, hints: TensorFileHints, tokenizer_folder: Path | None
) -> ImportedModel:
    """Read a model; raise ValueError or OSError for a file that is not one."""
    tensors, stored = load_tensor_file(path)
    angles = tensors.pop(ROPE_ANGLES_KEY, None)
    try:
        config = _infer_config(tensors, angles, hints, stored)
        if angles is not None:
            _check_rope_angles(angles, config)
        if "token_embedding_table.weight" in tensors:
            tensors = convert_from_published(tensors, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tensors = check_and_unify_tensors(tensors, config, path, path.stat().st_size, None)
    return ImportedModel(
        config, tensors, load_tokenizer_for(config, tokenizer_folder, path), tokenizer_folder
    )


def load_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a .safetensors, .bin or .pt file without running code in it.

    Also returns the shape in the metadata that `gnano export` writes, or an empty dict.
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    tensors, text = read(path)
    try:
        shape = json.loads(text or "{}")
        ModelConfig(**shape)
    except (ValueError, TypeError):
        raise ValueError(f"{path}: the shape in its metadata is not that of a model.") from None
    return tensors, dict(shape)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(CONFIG_METADATA_KEY)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}).") from None


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], Any]:
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
    tensors = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{path} holds {name!r}, which is not a tensor: save only tensors.")
        for prefix in WRAPPER_PREFIXES:
            name = name.removeprefix(prefix)
        tensors[name] = tensor
    metadata = getattr(content, "_metadata", None)
    return tensors, metadata.get(CONFIG_METADATA_KEY) if isinstance(metadata, dict) else None


def _infer_config(
    tensors: Mapping[str, Tensor],
    rope_angles: Tensor | None,
    hints: TensorFileHints,
    stored_config: dict[str, Any],
) -> ModelConfig:
    def matrix_shape(*names: str) -> list[int]:
        for name in names:
            if name in tensors and tensors[name].dim() == 2:
                return list(tensors[name].shape)
        raise ValueError(f"it is not the state dict of a Llama: it has no matrix {names[0]}.")

    vocabulary, width = matrix_shape("model.embed_tokens.weight", "token_embedding_table.weight")
    hidden, _ = matrix_shape(
        "model.layers.0.mlp.gate_proj.weight", "blocks.0.feed_forward.w1.weight"
    )
    keys, _ = matrix_shape("model.layers.0.self_attn.k_proj.weight", "blocks.0.attention.wk.weight")
    layers = {
        int(match[1])
        for name in tensors
        if (match := re.match(r"(?:model\.layers|blocks)\.(\d{1,6})\.", name))
    }
    matrices = {
        "vocab_size": vocabulary, "n_embd": width, "n_layer": len(layers), "ffn_hidden": hidden
    }  # fmt: skip
    defaults: dict[str, Any] = {}  # for what nothing states
    for preset in PRESETS.values():
        same = all(getattr(preset, name) == value for name, value in matrices.items())
        if same and preset.n_kv_head * preset.head_size == keys:
            defaults |= {"n_head": preset.n_head, "block_size": preset.block_size}
    from_angles = {}
    if rope_angles is not None and rope_angles.dim() == 2:
        from_angles = {"n_head": width // (2 * max(rope_angles.shape[1], 1))}
        defaults["block_size"] = len(rope_angles)
    statements = {
        "the option": vars(hints),
        "the shape in the metadata": stored_config,
        "that of its matrices": matrices,
        f"that of {ROPE_ANGLES_KEY}": from_angles,
    }
    known = dict(defaults)
    for name in (field.name for field in fields(ModelConfig)):
        stated = {place: values.get(name) for place, values in statements.items()}
        if (value := require_agreement(name, stated)) is not None:
            known[name] = value
    if "n_head" not in known:
        raise ValueError("it does not state how many heads it has; pass --n-head.")
    if not 0 < known["n_head"] <= width or keys % (head := width // known["n_head"]):
        raise ValueError(
            f"{known['n_head']} heads do not fit keys of {keys} rows at a width of {width}."
        )
    stated = {"the shape in the metadata": stored_config.get("n_kv_head")}
    known["n_kv_head"] = require_agreement(
        "n_kv_head", {**stated, "that of its matrices": keys // head}
    )
    return ModelConfig(**known)


def _check_rope_angles(angles: Tensor, config: ModelConfig) -> None:
    """Raise ValueError unless position 1 of the angles [T, E/2] is rotated by the config's base."""
    if not angles.is_complex() or angles.dim() != 2 or len(angles) < 2:
        return
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
    found = angles[1].to(torch.complex128).angle()
    if not torch.allclose(found, config.rope_theta**-exponents, rtol=0.01, atol=0):
        base = float(found[1:2].pow(-config.head_size / 2).mean())
        raise ValueError(
            f"its {ROPE_ANGLES_KEY} are those of a base of about {base:,.0f}, not "
            f"{config.rope_theta:,.0f}; pass the base that it was trained with (--rope-theta)."
        )
