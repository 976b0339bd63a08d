"""Reads and writes GGUF files, the format of llama.cpp: weights, shape and tokenizer in one.

GGUF's Llama rotates neighboring channels, like the published checkpoint: rows of queries and keys
are permuted to that order. Norms stay fp32. Models with a tokenizer of GPT-2's kind in F32, F16 or
BF16 can be read. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnano.config.model_config import ModelConfig
from gnano.data.sft.chat_template import read_jinja_template
from gnano.export.tensor_file import ExportSource
from gnano.model.tensor_names import rope_permute, rope_unpermute
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer
from gnano.utils.platform_support import require
from gnano.utils.validation import require_agreement

QUANTIZATION_TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
ROPE_PERMUTED_SUFFIXES = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
MAX_BLOCKS = 1_000
PADDING_TOKEN = "[PAD{}]"  # of an unused embedding row, as llama.cpp's converter names it


def export_gguf(source: ExportSource, path: Path, dtype: str) -> None:
    """Write the matrices as `dtype`, one at a time, so that memory holds only one.

    Raises ValueError for a width that is not a multiple of the quantization's block of 32.
    """
    gguf = _import_gguf()
    config, tokenizer = source.config, source.tokenizer
    matrix_type = getattr(gguf.GGMLQuantizationType, QUANTIZATION_TYPES[dtype])
    writer = gguf.GGUFWriter(path, "llama")
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

    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    # llama.cpp needs a token for each row
    unused = [PADDING_TOKEN.format(row) for row in range(len(tokens), config.vocab_size)]
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.UNUSED] * len(unused)
    kinds[tokenizer.end_of_text_id] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + unused)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.end_of_text_id)
    writer.add_eos_token_id(tokenizer.end_of_text_id)
    writer.add_add_bos_token(False)
    if template := read_jinja_template(source.folder):
        writer.add_chat_template(template)

    names = _map_to_gguf_names(config)
    stored_types = {}
    for name, tensor in source.tensors.items():
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
    for name, tensor in source.tensors.items():
        values = tensor.float()
        if name.endswith(ROPE_PERMUTED_SUFFIXES):
            values = rope_unpermute(values, config.head_size)
        quantized = gguf.quants.quantize(values.contiguous().numpy(), stored_types[name])
        writer.write_tensor_data(quantized)
    writer.close()


def _import_gguf() -> Any:
    require("gguf", "gguf", "GGUF files need the package gguf")
    import gguf

    return gguf


def _map_to_gguf_names(config: ModelConfig) -> dict[str, str]:
    """Map Hugging Face's tensor names to those of GGUF."""
    gguf = _import_gguf()
    name_map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.n_layer)
    with torch.device("meta"):
        names = GPT.from_config(config).state_dict()
    return {name: name_map.get_name(name, try_suffixes=(".weight",)) for name in names}


def read_gguf(path: Path) -> tuple[ModelConfig, dict[str, Tensor], Tokenizer, str | None]:
    """Return a model's shape, tensors, tokenizer and chat template in Jinja.

    Raises ValueError or OSError for a file that cannot be used.
    """
    gguf = _import_gguf()
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
        if names[entry.name].endswith(ROPE_PERMUTED_SUFFIXES) and tensor.dim() == 2:
            if tensor.shape[0] % config.head_size:
                raise ValueError(
                    f"{path}: the rows of tensor {entry.name} are not a multiple of the head size."
                )
            tensor = rope_permute(tensor, config.head_size)
        tensors[names[entry.name]] = tensor
    return config, tensors, _read_tokenizer(get, path), get("tokenizer.chat_template")


def _read_config(get: Callable[..., Any], tensors: dict[str, Any], path: Path) -> ModelConfig:
    def get_number(key: str, default: float | None = None) -> Any:
        value = get(f"llama.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: llama.{key} is {value!r}; it must be a number.")
        # it is fp32 in the file: 1e-6, and not 9.999999974752427e-07
        return float(str(np.float32(value))) if isinstance(value, float) else value

    if (kind := get("general.architecture")) != "llama":
        raise ValueError(f"{path} holds a model of the kind {kind!r}; only llama is supported.")
    if (scaling := get("llama.rope.scaling.type", "none")) != "none":
        raise ValueError(f"{path} scales RoPE ({scaling}), which is not supported.")
    heads, blocks = get_number("attention.head_count"), get_number("block_count")
    if not 0 < blocks <= MAX_BLOCKS:
        raise ValueError(f"{path} claims to have {blocks} blocks.")
    if "token_embd.weight" not in tensors:
        raise ValueError(f"{path} has no tensor token_embd.weight.")
    rows = {
        "that of llama.vocab_size": get("llama.vocab_size"),
        "that of token_embd.weight": int(tensors["token_embd.weight"].shape[-1]),
    }
    config = ModelConfig(
        vocab_size=require_agreement(f"In {path} the number of tokens", rows),
        n_embd=get_number("embedding_length"),
        n_layer=blocks,
        n_head=heads,
        n_kv_head=get_number("attention.head_count_kv", heads),
        ffn_hidden=get_number("feed_forward_length"),
        block_size=get_number("context_length"),
        rope_theta=get_number("rope.freq_base", 10_000.0),
        norm_eps=get_number("attention.layer_norm_rms_epsilon"),
    )
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if (size := get_number(key, config.head_size)) != config.head_size:
            raise ValueError(
                f"{path}: llama.{key} is {size}, but {config.n_embd} / {heads} heads is "
                f"{config.head_size}; other head sizes are not supported."
            )
    return config


def _read_tokenizer(get: Callable[..., Any], path: Path) -> Tokenizer:
    kind, split = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre")
    if kind != "gpt2" or split != "gpt-2":
        raise ValueError(
            f"{path} has a tokenizer of the kind {kind!r} with the split {split!r}; only GPT-2's "
            f"('gpt2', 'gpt-2') is supported."
        )
    tokens, merges = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.merges")
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise ValueError(f"{path} lists no tokens or no merges.")
    while tokens and tokens[-1] == PADDING_TOKEN.format(len(tokens) - 1):
        tokens.pop()
    try:
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        tokenizer = Tokenizer({token: number for number, token in enumerate(tokens)}, pairs)
    except ValueError as error:
        raise ValueError(f"{path}: its tokenizer cannot be used: {error}.") from None
    for end in ("eos", "bos"):
        key = f"tokenizer.ggml.{end}_token_id"
        ids = {f"that of {END_OF_TEXT}": tokenizer.end_of_text_id, key: get(key)}
        require_agreement(f"In {path} the id of {end}_token", ids)
    return tokenizer
