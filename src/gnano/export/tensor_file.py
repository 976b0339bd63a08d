"""Reads tensors: those of a checkpoint to export, or a bare file such as the published checkpoint.

A bare file does not state the number of heads, nor always the context. The command's options, the
metadata that `gnano export` writes and the rotary angles of the published file (`freqs_cis`
[T, E/2]) must agree; what none of them states is taken from a preset with the same matrices, or
from the reference model.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.model_config import MAX_DIMENSION, PRESETS, ModelConfig
from gnano.model.hf_io import load_config, load_pickle, load_tensors, strip_wrappers
from gnano.model.tensor_names import convert_from_published
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.utils.validation import Range, check_field_ranges, require_agreement

CONFIG_METADATA_KEY = "gnano.shape"  # key of the shape in a tensor file's metadata
ROPE_ANGLES_KEY = "freqs_cis"


@dataclass(frozen=True)
class ExportSource:
    """A model to export: a checkpoint, or the Hugging Face folder of a Llama."""

    folder: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]  # under Hugging Face's names; read from disk when used
    tokenizer: Tokenizer


def load_export_source(path: Path) -> ExportSource:
    """Open a run's newest checkpoint, a checkpoint, or a model folder.

    Raises FileNotFoundError or ValueError if the path is none of them.
    """
    folder = find_checkpoint(path)
    config = load_config(folder)
    return ExportSource(folder, config, load_tensors(folder, config), load_tokenizer(folder))


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


def load_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a .safetensors, .bin or .pt file without running code in it.

    Also returns the shape in the metadata that `gnano export` writes, or an empty dict.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                text = (file.metadata() or {}).get(CONFIG_METADATA_KEY)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or truncated ({error}).") from None
    else:
        tensors, metadata = load_pickle(path)
        text = metadata.get(CONFIG_METADATA_KEY) if isinstance(metadata, dict) else None
    try:
        shape = json.loads(text or "{}")
        ModelConfig.from_dict(shape)
    except (ValueError, TypeError):
        raise ValueError(f"{path}: the shape in its metadata is not that of a model.") from None
    return tensors, dict(shape)


def read_tensor_file_model(
    path: Path, hints: TensorFileHints
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return a file's shape and tensors, under Hugging Face's names; ValueError if it has none."""
    tensors, stored = load_tensor_file(path)
    tensors = {strip_wrappers(name): tensor for name, tensor in tensors.items()}
    angles = tensors.pop(ROPE_ANGLES_KEY, None)
    try:
        config = _infer_config(tensors, angles, hints, stored)
        if angles is not None and angles.is_complex() and angles.dim() == 2 and len(angles) > 1:
            # position 1 must be rotated by the config's base
            exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
            found = angles[1].to(torch.complex128).angle()
            if not torch.allclose(found, config.rope_theta**-exponents, rtol=0.01, atol=0):
                base = float(found[1:2].pow(-config.head_size / 2).mean())
                raise ValueError(
                    f"its {ROPE_ANGLES_KEY} are those of a base of about {base:,.0f}, not "
                    f"{config.rope_theta:,.0f}; pass the base that it was trained with "
                    f"(--rope-theta)."
                )
        if "token_embedding_table.weight" in tensors:
            tensors = convert_from_published(tensors, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config, tensors


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
    number = re.compile(r"(?:model\.layers|blocks)\.(\d{1,6})\.")
    layers = {int(match[1]) for name in tensors if (match := number.match(name))}
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

    def agreed(name: str) -> Any:
        stated = require_agreement(name, {place: s.get(name) for place, s in statements.items()})
        return defaults.get(name) if stated is None else stated

    heads = agreed("n_head")
    if heads is None:
        raise ValueError("it does not state how many heads it has; pass --n-head.")
    if not 0 < heads <= width or keys % (width // heads):
        raise ValueError(f"{heads} heads do not fit keys of {keys} rows at a width of {width}.")
    matrices["n_kv_head"] = keys // (width // heads)
    names = (field.name for field in fields(ModelConfig))
    return ModelConfig.from_dict({name: x for name in names if (x := agreed(name)) is not None})
