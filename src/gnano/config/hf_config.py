"""A model's shape as Hugging Face's `config.json`, written and read.

Read are Llama and the families that are a Llama but for a few fields, which `ModelConfig` has too:

    llama     biases in attention and feed-forward where the file has them
    mistral   no biases; a sliding window only if it is no shorter than the context
    qwen2     biases of queries, keys and values
    qwen3     a norm of each head's queries and keys

Whatever would change the model's results and is not known here is refused by name, because a
model that is read wrongly still writes plausible text.
"""

import math
from collections.abc import Mapping
from typing import Any, get_args

from gnano.config.model_config import (
    MAX_DIMENSION,
    MAX_LAYERS,
    Architecture,
    ModelConfig,
    RopeScaling,
)
from gnano.utils.validation import Range, check_number, require_agreement

ARCHITECTURES: dict[Architecture, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
DEFAULT_THETA = 10_000.0
# the keys of each kind of RoPE's scaling, and our fields
ROPE_KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "truncate": "truncate",
    },
}


def write_hf_config(config: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` of a model of this shape, but for its tokens and dtype."""
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_type": "default" if scaling.kind == "none" else scaling.kind}
    for key, field in ROPE_KEYS[scaling.kind].items():
        value = getattr(scaling, field)
        rope[key] = None if key == "attention_factor" and not value else value
    content: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_hidden,
        "max_position_embeddings": config.block_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        # both spellings: a reader that knows only the other one silently takes θ = 10,000
        "rope_theta": config.rope_theta,
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": 0.02,
    }
    if scaling.kind != "none":  # its old spelling, too
        content["rope_scaling"] = rope
    if config.architecture != "llama":
        content |= {"sliding_window": None, "use_sliding_window": False}
    return content


def read_hf_config(content: Mapping[str, Any]) -> ModelConfig:
    """Return the shape in a `config.json`; raise ValueError, naming the key, if it is unsupported.

    The message calls the file config.json; the caller adds its folder.
    """
    architecture: Any = content.get("model_type")
    if architecture not in get_args(Architecture):
        raise ValueError(
            f"config.json has model_type = {architecture!r}; supported are "
            f"{', '.join(ARCHITECTURES)}."
        )
    context = _number(content, "max_position_embeddings")
    for key, supported in {
        "hidden_act": content.get("hidden_act", "silu") == "silu",
        "quantization_config": not content.get("quantization_config"),
        "pretraining_tp": content.get("pretraining_tp") in (None, 1),
        "partial_rotary_factor": content.get("partial_rotary_factor") in (None, 1),
        "layer_types": set(content.get("layer_types") or ()) <= {"full_attention"},
        "sliding_window": (sliding_window(content) or context) >= context,
    }.items():
        if not supported:
            raise ValueError(
                f"config.json has {key} = {content.get(key)!r}, which gnano does not compute."
            )
    theta, scaling = _read_rope(content, context)
    heads, width = _number(content, "num_attention_heads"), _number(content, "hidden_size")
    default_head = 128 if architecture == "qwen3" else width // max(heads, 1)
    head = _number(content, "head_dim", default_head)
    return ModelConfig(
        vocab_size=_number(content, "vocab_size"),
        n_embd=width,
        n_layer=_number(content, "num_hidden_layers", maximum=MAX_LAYERS),
        n_head=heads,
        n_kv_head=_number(content, "num_key_value_heads", heads),
        ffn_hidden=_number(content, "intermediate_size"),
        block_size=context,
        dropout=_number(content, "attention_dropout", 0.0, is_integer=False),
        rope_theta=theta,
        norm_eps=_number(content, "rms_norm_eps", is_integer=False),
        architecture=architecture,
        head_dim=0 if head * heads == width else head,
        tie_embeddings=bool(content.get("tie_word_embeddings")),
        attention_bias=bool(content.get("attention_bias")),
        mlp_bias=bool(content.get("mlp_bias")),
        rope_scaling=scaling,
    )


def sliding_window(content: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that attention is limited to by a `config.json`, or None."""
    window = content.get("sliding_window")
    is_used = content.get("model_type") == "mistral" or content.get("use_sliding_window")
    return window if is_used and isinstance(window, int) else None


def _number(
    content: Mapping[str, Any],
    key: str,
    default: Any = None,
    maximum: float = MAX_DIMENSION,
    is_integer: bool = True,
) -> Any:
    value = content.get(key)
    value = default if value is None else value  # null means absent, as in transformers
    if value is None:
        raise ValueError(f"config.json has no {key}, a part of the model's shape.")
    if is_integer and isinstance(value, float) and value.is_integer():
        value = int(value)
    check_number(f"config.json: {key}", value, Range(0, maximum), is_integer)
    return value


def _read_rope(content: Mapping[str, Any], context: int) -> tuple[float, RopeScaling]:
    """Return RoPE's base and scaling, each of which a file may state in several places."""
    stated: dict[str, dict[str, Any]] = {"rope_theta": {"rope_theta": content.get("rope_theta")}}
    for table in ("rope_parameters", "rope_scaling"):
        entries = content.get(table) or {}
        if not isinstance(entries, dict):
            raise ValueError(f"config.json has {table} = {entries!r}; it must be an object.")
        for key, value in entries.items():
            name = "rope_type" if key == "type" else key  # its old spelling
            stated.setdefault(name, {})[f"{table}.{key}"] = value
    names = {"rope_theta": "RoPE's base", "rope_type": "RoPE's scaling"}
    rope = {
        key: require_agreement(f"In config.json {names.get(key, f'RoPE {key}')}", places)
        for key, places in stated.items()
    }
    theta = _number(rope, "rope_theta", DEFAULT_THETA, math.inf, is_integer=False)
    kind: Any = {"default": "none", None: "none"}.get(rope.get("rope_type"), rope.get("rope_type"))
    if kind not in ROPE_KEYS:
        others = ", ".join(name for name in ROPE_KEYS if name != "none")
        raise ValueError(f"config.json has rope_type {kind!r}; supported are default, {others}.")
    known = ROPE_KEYS[kind]
    mscales = [rope.pop(key, None) for key in ("mscale", "mscale_all_dim")]
    if kind == "yarn" and all(mscales) and not rope.get("attention_factor"):
        growth = 0.1 * math.log(max(rope.get("factor") or 1.0, 1.0))
        rope["attention_factor"] = (growth * mscales[0] + 1) / (growth * mscales[1] + 1)
    for key, value in rope.items():
        # without scaling, transformers uses none of the others
        is_used = kind != "none" or key == "partial_rotary_factor"
        is_default = value is None or (key, value) == ("partial_rotary_factor", 1)
        if key not in (*known, "rope_theta", "rope_type") and is_used and not is_default:
            raise ValueError(f"config.json has RoPE {key} = {value!r}, which is not supported.")
    if "original_max_position_embeddings" in known:
        rope.setdefault("original_max_position_embeddings", context)
    used = {field: rope[key] for key, field in known.items() if rope.get(key) is not None}
    return theta, RopeScaling(kind=kind, **used)
