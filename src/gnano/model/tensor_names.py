"""Tensor names of the published checkpoint, converted to Hugging Face's Llama names and back.

The published checkpoint also pairs neighboring channels (0, 1), (2, 3), … for RoPE, where Hugging
Face pairs (0, E/2), (1, E/2 + 1), …: the rows of wq and wk are permuted so that both compute the
same.
"""

from collections.abc import Mapping

from torch import Tensor

from gnano.config.model_config import ModelConfig

_TOP_LEVEL_NAMES = {
    "token_embedding_table": "model.embed_tokens",
    "norm": "model.norm",
    "lm_head": "lm_head",
}
_BLOCK_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.up_proj",
    "feed_forward.w3": "mlp.down_proj",
}
_PUBLISHED_TOP_LEVEL_NAMES, _PUBLISHED_BLOCK_NAMES = (
    {ours: theirs for theirs, ours in table.items()} for table in (_TOP_LEVEL_NAMES, _BLOCK_NAMES)
)


def convert_from_published(
    state_dict: Mapping[str, Tensor], config: ModelConfig
) -> dict[str, Tensor]:
    """Return the tensors under Hugging Face's names, queries and keys in half-split order."""
    ours = {}
    for name, tensor in state_dict.items():
        if name == "freqs_cis":  # RoPE angles, which are computed here
            continue
        module = name.removesuffix(".weight")
        if module in _TOP_LEVEL_NAMES:
            ours[f"{_TOP_LEVEL_NAMES[module]}.weight"] = tensor
            continue
        prefix, _, rest = module.partition(".")
        number, _, part = rest.partition(".")
        if prefix != "blocks" or part not in _BLOCK_NAMES:
            raise ValueError(f"The published checkpoint's layout has no tensor {name!r}.")
        if part in ("attention.wq", "attention.wk"):
            tensor = rope_permute(tensor, config.head_size)
        ours[f"model.layers.{number}.{_BLOCK_NAMES[part]}.weight"] = tensor
    return ours


def convert_to_published(name: str, tensor: Tensor, config: ModelConfig) -> tuple[str, Tensor]:
    """Return the published checkpoint's name and row order of one of our tensors."""
    module = name.removesuffix(".weight")
    if module in _PUBLISHED_TOP_LEVEL_NAMES:
        return f"{_PUBLISHED_TOP_LEVEL_NAMES[module]}.weight", tensor
    number, _, part = module.removeprefix("model.layers.").partition(".")
    if part in ("self_attn.q_proj", "self_attn.k_proj"):
        tensor = rope_unpermute(tensor, config.head_size)
    return f"blocks.{number}.{_PUBLISHED_BLOCK_NAMES[part]}.weight", tensor


def rope_unpermute(weight: Tensor, head_size: int) -> Tensor:
    """Reorder the rows of each head from half-split (0, 2, …, 1, 3, …) to (0, 1, 2, 3, …)."""
    heads_2_pairs_D = weight.view(-1, 2, head_size // 2, *weight.shape[1:])
    return heads_2_pairs_D.transpose(1, 2).reshape(weight.shape)


def rope_permute(weight: Tensor, head_size: int) -> Tensor:
    """Reorder the rows of each head from (0, 1, 2, 3, …) to half-split (0, 2, …, 1, 3, …)."""
    heads_pairs_2_D = weight.view(-1, head_size // 2, 2, *weight.shape[1:])
    return heads_pairs_2_D.transpose(1, 2).reshape(weight.shape)
