"""A file of tensors alone: the published checkpoint's, or one that `gnano export` wrote.

Nothing in it says how many heads there are, and it need not say for how long a context. In order:
what was asked for, what the file has written beside its tensors, the angles that the published
file holds (`freqs_cis` [T, E/2]), a named shape with the same matrices, the reference model's.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.export.foreign import Foreign, checked, tokenizer_for
from gnano.export.hugging_face import SHAPE
from gnano.model import PRESETS, ModelConfig, from_published

ANGLES = "freqs_cis"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # a training file holds more than a model
PREFIXES = ("_orig_mod.", "module.")  # torch.compile's and DDP's


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a file of tensors need not say."""

    n_head: int | None = None  # query heads
    block_size: int | None = None  # context, in tokens
    rope_theta: float | None = None
    norm_eps: float | None = None

    def given(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def read_lone_file(path: Path, hints: Hints, tokenizer: Path | None) -> Foreign:
    """Raises ValueError or OSError, in a sentence, for a file that is no model."""
    if path.suffix == ".safetensors":
        tensors, written = _safetensors(path)
    else:
        tensors, written = _unpickled(path), {}
    angles = tensors.pop(ANGLES, None)
    config = _shape(tensors, angles, {**written, **hints.given()}, path)
    if "token_embedding_table.weight" in tensors:
        try:
            tensors = from_published(tensors, config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    whole = checked(tensors, config, path, path.stat().st_size)
    return Foreign(config, whole, tokenizer_for(config, tokenizer, path))


def read_tensors_of(path: Path) -> dict[str, Tensor]:
    """Those of a .safetensors file, or of a .bin or .pt that holds tensors and no code."""
    return _safetensors(path)[0] if path.suffix == ".safetensors" else _unpickled(path)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            written = json.loads((file.metadata() or {}).get(SHAPE, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}).") from None
    except ValueError:
        raise ValueError(f"{path}: the shape written in it is not JSON.") from None
    known = {field.name for field in fields(ModelConfig)}
    if not isinstance(written, dict) or not written.keys() <= known:
        raise ValueError(f"{path}: the shape written in it is not a model's.")
    return tensors, written


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        reason = re.split(r"[\n:]", str(error))[0]
        raise ValueError(
            f"{path} holds something else than tensors, or is damaged, and was not opened, since "
            f"that could run code ({reason})."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no PyTorch file, or is cut short ({reason}).") from None
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no state dict but {type(content).__name__}.")
    tensors = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{path} holds {name!r}, which is no tensor: save a state dict alone.")
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        tensors[name] = tensor
    return tensors


def _shape(
    tensors: Mapping[str, Tensor], angles: Tensor | None, asked: dict[str, Any], path: Path
) -> ModelConfig:
    def of(*names: str) -> list[int]:
        for name in names:
            if name in tensors and tensors[name].dim() == 2:
                return list(tensors[name].shape)
        raise ValueError(f"{path} is no Llama's state dict: it has no matrix {names[0]}.")

    vocabulary, width = of("model.embed_tokens.weight", "token_embedding_table.weight")
    hidden, _ = of("model.layers.0.mlp.gate_proj.weight", "blocks.0.feed_forward.w1.weight")
    keys, _ = of("model.layers.0.self_attn.k_proj.weight", "blocks.0.attention.wk.weight")
    numbers = {
        int(found[1])
        for name in tensors
        if (found := re.match(r"(?:model\.layers|blocks)\.(\d{1,6})\.", name))
    }
    matrices = {
        "vocab_size": vocabulary, "n_embd": width, "n_layer": len(numbers), "ffn_hidden": hidden
    }  # fmt: skip
    known = {**matrices}
    for preset in PRESETS.values():
        same = all(getattr(preset, name) == value for name, value in matrices.items())
        if same and preset.n_kv_head * preset.head_size == keys:
            known |= {"n_head": preset.n_head, "block_size": preset.block_size}
    if angles is not None and angles.dim() == 2:
        known |= {"n_head": width // (2 * angles.shape[1]), "block_size": len(angles)}
    known |= asked
    if "n_head" not in known:
        raise ValueError(f"Nothing in {path} says how many heads it has; tell it with --n-head.")
    if not 0 < known["n_head"] <= width or keys % (head := width // known["n_head"]):
        raise ValueError(
            f"{path}: {known['n_head']} heads do not fit keys of {keys} rows at a width of {width}."
        )
    return ModelConfig(**{**known, **matrices, "n_kv_head": keys // head})
