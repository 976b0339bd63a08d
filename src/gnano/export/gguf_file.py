"""Reads and writes GGUF files, the format of llama.cpp: weights, shape and tokenizer in one.

GGUF's Llama rotates neighboring channels, like the published checkpoint: rows of queries and keys
are permuted to that order. Its other families rotate half-split, as here. Vectors stay fp32. A
RoPE scaling of the kind llama3 is stored as what each frequency is divided by, from which its
settings cannot be read back. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from gnano.config.model_config import Architecture, ModelConfig, RopeScaling
from gnano.data.sft.chat_template import read_jinja_template
from gnano.export.gguf_tokenizer import add_tokenizer, import_gguf, read_tokenizer
from gnano.export.tensor_file import ExportSource
from gnano.model.rope import scale_frequencies
from gnano.model.tensor_names import rope_permute, rope_unpermute
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.validation import require_agreement

QUANTIZATION_TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
ROPE_PERMUTED_MODULES = ("self_attn.q_proj", "self_attn.k_proj")
ROPE_DIVISORS = "rope_freqs.weight"  # [E/2]
MAX_BLOCKS = 1_000


def export_gguf(source: ExportSource, path: Path, dtype: str) -> None:
    """Write the matrices as `dtype`, one at a time, so that memory holds only one.

    Raises ValueError for a width that is not a multiple of the quantization's block of 32, and for
    what llama.cpp does not compute.
    """
    gguf = import_gguf()
    config = source.config
    matrix_type = getattr(gguf.GGMLQuantizationType, QUANTIZATION_TYPES[dtype])
    writer = gguf.GGUFWriter(path, _gguf_architecture(config))
    file_type = "ALL_F32" if dtype == "fp32" else f"MOSTLY_{QUANTIZATION_TYPES[dtype]}"
    writer.add_file_type(getattr(gguf.LlamaFileType, file_type))
    writer.add_name(source.folder.resolve().name)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.ffn_hidden)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_vocab_size(config.vocab_size)
    added = _add_rope(writer, config)
    tensors = ChainMap(added, source.tensors)  # type: ignore[arg-type]  # it is only read
    try:
        add_tokenizer(writer, source.tokenizer, config.vocab_size)
    except ValueError as error:
        raise ValueError(
            f"The tokenizer of {source.folder} does not fit in a GGUF file: {error}. Export the "
            f"model as a folder (--to folder)."
        ) from None
    if template := read_jinja_template(source.folder):
        writer.add_chat_template(template)

    names = _map_to_gguf_names(config) | {ROPE_DIVISORS: ROPE_DIVISORS}
    stored_types = {}
    for name, tensor in tensors.items():
        stored = matrix_type if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        block, size = gguf.GGML_QUANT_SIZES[stored]
        if tensor.shape[-1] % block:
            raise ValueError(
                f"{name} is {tensor.shape[-1]} wide, and {dtype} needs a multiple of {block}: "
                f"export as bf16 (--dtype bf16)."
            )
        shape, num_bytes = tuple(tensor.shape), tensor.numel() // block * size
        # raw_dtype overrides the array's dtype
        array = np.dtype(np.float32)
        writer.add_tensor_info(names[name], shape, array, num_bytes, raw_dtype=stored)
        stored_types[name] = stored
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        values = tensor.float()
        if _is_permuted(name, config):
            values = rope_unpermute(values, config.head_size)
        quantized = gguf.quants.quantize(values.contiguous().numpy(), stored_types[name])
        writer.write_tensor_data(quantized)
    writer.close()


def _gguf_architecture(config: ModelConfig) -> str:
    return "llama" if config.architecture == "mistral" else config.architecture


def _is_permuted(name: str, config: ModelConfig) -> bool:
    module = name.rpartition(".")[0]  # of a weight or a bias
    return module.endswith(ROPE_PERMUTED_MODULES) and _gguf_architecture(config) == "llama"


def _map_to_gguf_names(config: ModelConfig) -> dict[str, str]:
    """Map Hugging Face's tensor names to those of GGUF."""
    gguf = import_gguf()
    kind = getattr(gguf.MODEL_ARCH, _gguf_architecture(config).upper())
    name_map = gguf.get_tensor_name_map(kind, config.n_layer)
    with torch.device("meta"):
        names = GPT.from_config(config).state_dict()
    return {name: name_map.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}


def _add_rope(writer: Any, config: ModelConfig) -> dict[str, Tensor]:
    """Add the size of a head and RoPE's scaling; return the tensor that the latter may need."""
    if config.head_dim:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    scaling, kinds = config.rope_scaling, import_gguf().RopeScalingType
    if scaling.kind == "llama3":
        frequencies = torch.ones(config.head_size // 2)
        frequencies /= config.rope_theta ** (
            torch.arange(0, config.head_size, 2) / config.head_size
        )
        scaled, _ = scale_frequencies(frequencies, config.rope_theta, scaling)
        return {ROPE_DIVISORS: frequencies / scaled}
    if scaling.kind != "none":
        writer.add_rope_scaling_type(getattr(kinds, scaling.kind.upper()))
        writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "yarn":
        if not scaling.truncate:
            raise ValueError(
                "llama.cpp rounds the bounds of YaRN to whole frequencies, and this model does not "
                "(model.rope_scaling.truncate): export it as a folder (--to folder)."
            )
        writer.add_rope_scaling_orig_ctx_len(scaling.original_context)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
        if scaling.attention_factor:  # llama.cpp multiplies it by the default factor
            default = 0.1 * math.log(scaling.factor) + 1
            writer.add_rope_scaling_attn_factors(scaling.attention_factor / default)
    return {}


def read_gguf(path: Path) -> tuple[ModelConfig, dict[str, Tensor], Tokenizer, str | None]:
    """Return a model's shape, tensors, tokenizer and chat template in Jinja.

    Raises ValueError or OSError for a file that cannot be used.
    """
    gguf = import_gguf()
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file: it does not start like one.")
    try:
        reader = gguf.GGUFReader(path, "c")  # memory-mapped, copy on write
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise ValueError(f"{path} is damaged or truncated ({error}).") from None

    def get(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    config = _read_config(get, {tensor.name: tensor for tensor in reader.tensors}, path)
    names = {theirs: ours for ours, theirs in _map_to_gguf_names(config).items()}
    kinds = gguf.GGMLQuantizationType
    tensors: dict[str, Tensor] = {}
    for entry in reader.tensors:
        if entry.name not in names:
            raise ValueError(f"{path}: tensor {entry.name} does not belong to a plain Llama.")
        if entry.tensor_type not in (kinds.F32, kinds.F16, kinds.BF16):
            raise ValueError(
                f"{path}: tensor {entry.name} is {entry.tensor_type.name}; only F32, F16 and BF16 "
                f"can be imported, as the others do not hold the original weights."
            )
        tensor = torch.from_numpy(entry.data)
        if entry.tensor_type == kinds.BF16:
            tensor = tensor.view(torch.bfloat16)
        tensor = tensor.reshape([int(size) for size in reversed(entry.shape)])
        if _is_permuted(names[entry.name], config) and tensor.dim():
            if tensor.shape[0] % config.head_size:
                raise ValueError(
                    f"{path}: the rows of tensor {entry.name} are not a multiple of the head size."
                )
            tensor = rope_permute(tensor, config.head_size)
        tensors[names[entry.name]] = tensor
    return config, tensors, read_tokenizer(get, path), get("tokenizer.chat_template")


def _read_config(get: Callable[..., Any], tensors: dict[str, Any], path: Path) -> ModelConfig:
    architecture: Any = get("general.architecture")

    def get_number(key: str, default: float | None = None) -> Any:
        value = get(f"{architecture}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {architecture}.{key} is {value!r}; it must be a number.")
        # it is fp32 in the file: 1e-6, and not 9.999999974752427e-07
        return float(str(np.float32(value))) if isinstance(value, float) else value

    if architecture not in get_args(Architecture):
        raise ValueError(
            f"{path} holds a model of the kind {architecture!r}; supported are "
            f"{', '.join(get_args(Architecture))}."
        )
    kind = get(f"{architecture}.rope.scaling.type", "none")
    if kind not in ("none", "linear", "yarn") or ROPE_DIVISORS in tensors:
        raise ValueError(
            f"{path} scales RoPE by {kind if kind != 'none' else ROPE_DIVISORS}, which cannot be "
            f"read from a GGUF file: use the model's Hugging Face folder."
        )
    scaling: dict[str, Any] = {"kind": kind}
    if kind != "none":
        scaling["factor"] = get_number("rope.scaling.factor")
    if kind == "yarn":
        scaling["original_context"] = get_number("rope.scaling.original_context_length")
        scaling["beta_fast"] = get_number("rope.scaling.yarn_beta_fast", 32.0)
        scaling["beta_slow"] = get_number("rope.scaling.yarn_beta_slow", 1.0)
        if share := get_number("rope.scaling.attn_factor", 0.0):
            scaling["attention_factor"] = share * (0.1 * math.log(scaling["factor"]) + 1)
    heads, blocks = get_number("attention.head_count"), get_number("block_count")
    if not 0 < blocks <= MAX_BLOCKS:
        raise ValueError(f"{path} claims to have {blocks} blocks.")
    if "token_embd.weight" not in tensors:
        raise ValueError(f"{path} has no tensor token_embd.weight.")
    rows = {
        f"that of {architecture}.vocab_size": get(f"{architecture}.vocab_size"),
        "that of token_embd.weight": int(tensors["token_embd.weight"].shape[-1]),
    }
    width = get_number("embedding_length")
    head_size = get_number("attention.key_length", width // max(heads, 1))
    has_bias = "blk.0.attn_output.bias" in tensors
    config = ModelConfig(
        vocab_size=require_agreement(f"In {path} the number of tokens", rows),
        n_embd=width,
        n_layer=blocks,
        n_head=heads,
        n_kv_head=get_number("attention.head_count_kv", heads),
        ffn_hidden=get_number("feed_forward_length"),
        block_size=get_number("context_length"),
        rope_theta=get_number("rope.freq_base", 10_000.0),
        norm_eps=get_number("attention.layer_norm_rms_epsilon"),
        architecture=architecture,
        head_dim=0 if head_size * heads == width else head_size,
        tie_embeddings="output.weight" not in tensors,
        attention_bias=has_bias,
        mlp_bias="blk.0.ffn_gate.bias" in tensors,
        rope_scaling=RopeScaling(**scaling),
    )
    for key in ("rope.dimension_count", "attention.value_length"):
        if (size := get_number(key, config.head_size)) != config.head_size:
            raise ValueError(
                f"{path}: {architecture}.{key} is {size}, but the head size is {config.head_size}; "
                f"a part of it cannot be rotated, nor values have another size."
            )
    return config
