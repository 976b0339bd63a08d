"""A GGUF file of a Llama with a tokenizer of GPT-2's kind, in F32, F16 or BF16."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnano.export.foreign import ImportedModel, check_and_unify_tensors, check_vocab_size
from gnano.export.gguf_file import (
    ROPE_PERMUTED_SUFFIXES,
    gguf_to_hf_names,
    import_gguf,
    padding_tokens,
)
from gnano.model.config import ModelConfig
from gnano.model.names import rope_permute
from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer
from gnano.utils.agreement import require_agreement

MAX_BLOCKS = 1_000


def read_gguf(path: Path) -> ImportedModel:
    """Read a model; raises ValueError or OSError, in a sentence, for a file that is unusable."""
    gguf = import_gguf()
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file: it does not begin like one.")
    try:
        reader = gguf.GGUFReader(path, "c")  # memory-mapped, copy on write
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise ValueError(f"{path} is damaged or cut short ({error}).") from None
    metadata = _GgufMetadata(reader, path)
    config = _read_gguf_config(metadata, reader)
    names = gguf_to_hf_names(config)
    tensors: dict[str, Tensor] = {}
    for entry in reader.tensors:
        if entry.name not in names:
            raise ValueError(f"{path}: tensor {entry.name} has no place in a plain Llama.")
        name, tensor = names[entry.name], _read_gguf_tensor(entry, gguf, path)
        if name.endswith(ROPE_PERMUTED_SUFFIXES) and tensor.dim() == 2:
            if tensor.shape[0] % config.head_size:
                raise ValueError(f"{path}: tensor {entry.name} is not made of whole heads.")
            tensor = rope_permute(tensor, config.head_size)
        tensors[name] = tensor
    tokenizer = _read_gguf_tokenizer(metadata, path)
    check_vocab_size(tokenizer, config, path)
    tensors = check_and_unify_tensors(tensors, config, path, path.stat().st_size, None)
    return ImportedModel(
        config, tensors, tokenizer, chat_template=metadata.get("tokenizer.chat_template")
    )


class _GgufMetadata:
    """The file's metadata."""

    def __init__(self, reader: Any, path: Path) -> None:
        self.reader, self.path = reader, path

    def get(self, key: str, default: Any = None) -> Any:
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def get_number(self, key: str, default: float | None = None) -> Any:
        value = self.get(f"llama.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.path} says {value!r} for llama.{key}; it must be a number.")
        # it is fp32 in the file: 1e-6, and not 9.999999974752427e-07
        return float(str(np.float32(value))) if isinstance(value, float) else value


def _read_gguf_config(metadata: _GgufMetadata, reader: Any) -> ModelConfig:
    path = metadata.path
    if (kind := metadata.get("general.architecture")) != "llama":
        raise ValueError(f"{path} holds a model of the kind {kind!r}; only llama is known here.")
    if (scaling := metadata.get("llama.rope.scaling.type", "none")) != "none":
        raise ValueError(f"{path} scales RoPE ({scaling}); that is not known here.")
    heads, blocks = metadata.get_number("attention.head_count"), metadata.get_number("block_count")
    if not 0 < blocks <= MAX_BLOCKS:
        raise ValueError(f"{path} says that it has {blocks} blocks.")
    embedding = next((t for t in reader.tensors if t.name == "token_embd.weight"), None)
    if embedding is None:
        raise ValueError(f"{path} has no tensor token_embd.weight.")
    rows = {"that of llama.vocab_size": metadata.get("llama.vocab_size")}
    rows["that of token_embd.weight"] = int(embedding.shape[-1])
    config = ModelConfig(
        vocab_size=require_agreement(f"In {path} the number of tokens", rows),
        n_embd=metadata.get_number("embedding_length"),
        n_layer=blocks,
        n_head=heads,
        n_kv_head=metadata.get_number("attention.head_count_kv", heads),
        ffn_hidden=metadata.get_number("feed_forward_length"),
        block_size=metadata.get_number("context_length"),
        rope_theta=metadata.get_number("rope.freq_base", 10_000.0),
        norm_eps=metadata.get_number("attention.layer_norm_rms_epsilon"),
    )
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if (size := metadata.get_number(key, config.head_size)) != config.head_size:
            raise ValueError(
                f"{path} says {size} for llama.{key}, and {config.n_embd} / {heads} heads is "
                f"{config.head_size}: such heads are not known here."
            )
    return config


def _read_gguf_tensor(entry: Any, gguf: Any, path: Path) -> Tensor:
    kinds = gguf.GGMLQuantizationType
    if entry.tensor_type not in (kinds.F32, kinds.F16, kinds.BF16):
        raise ValueError(
            f"{path}: tensor {entry.name} is {entry.tensor_type.name}; only F32, F16 and BF16 can "
            f"be imported, as the others have lost what the model was."
        )
    data = torch.from_numpy(entry.data)
    if entry.tensor_type == kinds.BF16:
        data = data.view(torch.bfloat16)
    return data.reshape([int(size) for size in reversed(entry.shape)])


def _read_gguf_tokenizer(metadata: _GgufMetadata, path: Path) -> Tokenizer:
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split != "gpt-2":
        raise ValueError(
            f"{path} has a tokenizer of the kind {kind!r} with the split {split!r}; known here is "
            f"GPT-2's ('gpt2', 'gpt-2')."
        )
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise ValueError(f"{path} lists no tokens or no merges.")
    while tokens and tokens[-1:] == padding_tokens(range(len(tokens) - 1, len(tokens))):
        tokens.pop()
    try:
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        tokenizer = Tokenizer({token: number for number, token in enumerate(tokens)}, pairs)
    except ValueError as error:
        raise ValueError(f"{path}: its tokenizer cannot be used: {error}.") from None
    for end in ("eos", "bos"):
        key = f"tokenizer.ggml.{end}_token_id"
        ids = {f"that of {END_OF_TEXT}": tokenizer.end_of_text_id, key: metadata.get(key)}
        require_agreement(f"In {path} the id of {end}_token", ids)
    return tokenizer
