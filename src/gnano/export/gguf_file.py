"""A GGUF file, which llama.cpp and what is built on it read: weights, shape and tokenizer in one.

Its Llama turns neighbouring channels, as the published checkpoint does: queries and keys go in by
that order. Norms stay fp32. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnano.data.instructions.templates import jinja_of
from gnano.model.config import ModelConfig
from gnano.model.names import interleaved

if TYPE_CHECKING:
    from gnano.export.formats import Source

KINDS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_BLOCK = {
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
TURNED = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")  # rows permuted for its RoPE


def export_gguf(source: "Source", path: Path, dtype: str) -> None:
    """Write the matrices as `dtype`, one of `KINDS`, one at a time, so that memory holds only one.

    Raises ValueError for a width that is not a multiple of the block of 32.
    """
    gguf = needed()
    kind = getattr(gguf.GGMLQuantizationType, KINDS[dtype])
    writer = gguf.GGUFWriter(path, "llama")
    file_type = "ALL_F32" if dtype == "fp32" else f"MOSTLY_{KINDS[dtype]}"
    writer.add_file_type(getattr(gguf.LlamaFileType, file_type))
    _write_shape(writer, source)
    _write_tokenizer(writer, source, gguf)
    if template := jinja_of(source.folder):
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
        writer.add_tensor_info(gguf_name(name), shape, array, stored_bytes, raw_dtype=stored)
        pending.append((tensor, name, stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, name, stored in pending:
        values = tensor.float()
        if name.endswith(TURNED):
            values = interleaved(values, source.config.head_size)
        writer.write_tensor_data(gguf.quants.quantize(values.contiguous().numpy(), stored))
    writer.close()


def needed() -> Any:
    """Return the package `gguf`; raises ValueError, in a sentence, if it is not installed."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise ValueError(
            "GGUF files need the package gguf: pip install 'auto-g-nano[gguf]'."
        ) from None
    return gguf


def gguf_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if module in TOP:
        return f"{TOP[module]}.weight"
    number, _, part = module.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{IN_BLOCK[part]}.weight"


def our_names(config: ModelConfig) -> dict[str, str]:
    """Map the names in GGUF to ours."""
    blocks = [f"model.layers.{n}.{part}" for n in range(config.n_layer) for part in IN_BLOCK]
    return {gguf_name(f"{module}.weight"): f"{module}.weight" for module in [*TOP, *blocks]}


def _write_shape(writer: Any, source: "Source") -> None:
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


def padding(rows: range) -> list[str]:
    """Return tokens for embedding rows without one, named as llama.cpp's converter names them."""
    return [f"[PAD{row}]" for row in rows]


def _write_tokenizer(writer: Any, source: "Source", gguf: Any) -> None:
    tokenizer = source.tokenizer
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    # llama.cpp wants a token for each row
    unused = padding(range(len(tokens), source.config.vocab_size))
    tokens += unused
    kinds += [gguf.TokenType.UNUSED] * len(unused)
    kinds[tokenizer.end_of_text] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)
