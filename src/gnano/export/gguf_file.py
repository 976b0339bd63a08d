"""A GGUF file, which llama.cpp and what is built on it read: weights, shape and tokenizer in one.

Its Llama turns neighbouring channels, as the published checkpoint does: queries and keys go in by
that order. Norms stay fp32. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnano.data.instructions.templates import read_jinja_template
from gnano.model.config import ModelConfig
from gnano.model.names import rope_unpermute

if TYPE_CHECKING:
    from gnano.export.formats import ExportSource

QUANTIZATION_TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
GGUF_TOP_LEVEL_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GGUF_BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ROPE_PERMUTED_SUFFIXES = (
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
)  # rows permuted for its RoPE


def export_gguf(source: "ExportSource", path: Path, dtype: str) -> None:
    """Write the matrices as `dtype`, one of `KINDS`, one at a time, so that memory holds only one.

    Raises ValueError for a width that is not a multiple of the block of 32.
    """
    gguf = import_gguf()
    kind = getattr(gguf.GGMLQuantizationType, QUANTIZATION_TYPES[dtype])
    writer = gguf.GGUFWriter(path, "llama")
    file_type = "ALL_F32" if dtype == "fp32" else f"MOSTLY_{QUANTIZATION_TYPES[dtype]}"
    writer.add_file_type(getattr(gguf.LlamaFileType, file_type))
    _write_config_metadata(writer, source)
    _write_tokenizer_metadata(writer, source, gguf)
    if template := read_jinja_template(source.folder):
        writer.add_chat_template(template)
    pending = []
    for name, tensor in source.tensors.items():
        stored = kind if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        block, size = gguf.GGML_QUANT_SIZES[stored]
        if tensor.shape[-1] % block:
            raise ValueError(
                f"{name} is {tensor.shape[-1]} wide, and {dtype} needs a multiple of {block}: "
                f"export as bf16 (--dtype bf16)."
            )
        shape, stored_bytes = tuple(tensor.shape), tensor.numel() // block * size
        # raw_dtype overrides the array's dtype
        array = np.dtype(np.float32)
        writer.add_tensor_info(to_gguf_name(name), shape, array, stored_bytes, raw_dtype=stored)
        pending.append((tensor, name, stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, name, stored in pending:
        values = tensor.float()
        if name.endswith(ROPE_PERMUTED_SUFFIXES):
            values = rope_unpermute(values, source.config.head_size)
        writer.write_tensor_data(gguf.quants.quantize(values.contiguous().numpy(), stored))
    writer.close()


def import_gguf() -> Any:
    """Return the package `gguf`; raises ValueError, in a sentence, if it is not installed."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise ValueError(
            "GGUF files need the package gguf: pip install 'auto-g-nano[gguf]'."
        ) from None
    return gguf


def to_gguf_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if module in GGUF_TOP_LEVEL_NAMES:
        return f"{GGUF_TOP_LEVEL_NAMES[module]}.weight"
    number, _, part = module.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{GGUF_BLOCK_NAMES[part]}.weight"


def gguf_to_hf_names(config: ModelConfig) -> dict[str, str]:
    """Map the names in GGUF to ours."""
    blocks = [
        f"model.layers.{n}.{part}" for n in range(config.n_layer) for part in GGUF_BLOCK_NAMES
    ]
    return {
        to_gguf_name(f"{module}.weight"): f"{module}.weight"
        for module in [*GGUF_TOP_LEVEL_NAMES, *blocks]
    }


def _write_config_metadata(writer: Any, source: "ExportSource") -> None:
    config = source.config
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


def padding_tokens(token_ids: range) -> list[str]:
    """Return tokens for embedding rows without one, named as llama.cpp's converter names them."""
    return [f"[PAD{row}]" for row in token_ids]


def _write_tokenizer_metadata(writer: Any, source: "ExportSource", gguf: Any) -> None:
    tokenizer = source.tokenizer
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    # llama.cpp wants a token for each row
    unused = padding_tokens(range(len(tokens), source.config.vocab_size))
    tokens += unused
    kinds += [gguf.TokenType.UNUSED] * len(unused)
    kinds[tokenizer.end_of_text_id] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.end_of_text_id)
    writer.add_eos_token_id(tokenizer.end_of_text_id)
    writer.add_add_bos_token(False)
