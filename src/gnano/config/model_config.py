"""The shape of a model, the presets of shapes, and the settings of a LoRA adapter.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from gnano.utils.validation import (
    Range,
    check_field_ranges,
    check_number,
    reject_unused,
    require_agreement,
)

VOCAB_MULTIPLE = 128  # of the head's rows while running: GPUs are fast with complete tiles
MAX_DIMENSION, MAX_LAYERS = 2**24, 1_000  # larger values in a file are errors
TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGET_MODULES: tuple[TargetModule, ...] = get_args(TargetModule)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model."""

    # size of the vocabulary, in tokens; 50,257 is GPT-2's BPE
    vocab_size: Annotated[int, Range(1, MAX_DIMENSION)] = 50_257
    n_embd: Annotated[int, Range(1, MAX_DIMENSION)] = 1_792  # width of the residual stream
    n_layer: Annotated[int, Range(1, MAX_LAYERS)] = 24  # transformer blocks
    n_head: Annotated[int, Range(1, MAX_DIMENSION)] = 14  # query heads
    # key/value heads; n_head / n_kv_head query heads share one
    n_kv_head: Annotated[int, Range(1, MAX_DIMENSION)] = 2
    ffn_hidden: Annotated[int, Range(1, MAX_DIMENSION)] = 5_376  # width of the feed-forward layer
    # context length, in tokens
    block_size: Annotated[int, Range(2, MAX_DIMENSION)] = 1_024
    # probability of dropping an activation in training
    dropout: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.0
    rope_theta: Annotated[float, Range(1)] = 500_000.0  # base of the rotary frequencies
    norm_eps: Annotated[float, Range(0, 1)] = 1e-6  # added to the mean square in RMSNorm

    def __post_init__(self) -> None:
        check_field_ranges(self, "model")
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            raise ValueError(
                f"model.n_embd {self.n_embd:,} does not split into {self.n_head} heads of an even "
                f"size (model.n_head): {self.n_embd:,} / {self.n_head} = "
                f"{self.n_embd / self.n_head:g}. Choose n_embd = n_head × an even number."
            )
        if self.n_head % self.n_kv_head:
            raise ValueError(
                f"{self.n_head} query heads (model.n_head) cannot share {self.n_kv_head} key/value "
                f"heads (model.n_kv_head) evenly. Choose a divisor of {self.n_head}."
            )

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.n_embd // self.n_head

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the head while running; on disk it has exactly `vocab_size`."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def to_hf(self) -> dict[str, Any]:
        """Return the `config.json` of a Hugging Face `LlamaForCausalLM` of this shape."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.n_embd,
            "num_hidden_layers": self.n_layer,
            "num_attention_heads": self.n_head,
            "num_key_value_heads": self.n_kv_head,
            "head_dim": self.head_size,
            "intermediate_size": self.ffn_hidden,
            "max_position_embeddings": self.block_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_eps,
            # both spellings: a reader that knows only the other one silently takes θ = 10,000
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": self.dropout,
            "tie_word_embeddings": False,
            "initializer_range": 0.02,
        }

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "ModelConfig":
        """Read the shape from a Llama `config.json`; raise ValueError for unsupported models."""
        unsupported = {
            "model_type": config.get("model_type") != "llama",
            "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
            "attention_bias": bool(config.get("attention_bias")),
            "mlp_bias": bool(config.get("mlp_bias")),
            "hidden_act": config.get("hidden_act", "silu") != "silu",
            "quantization_config": bool(config.get("quantization_config")),
        }
        for key, is_unsupported in unsupported.items():
            if is_unsupported:
                raise ValueError(
                    f"config.json has {key} = {config.get(key)!r}; only Llama models without "
                    f"biases, tied embeddings and quantization, with SiLU, are supported."
                )
        thetas = {"rope_theta": config.get("rope_theta")}  # its old spelling, then the new ones
        scalings: dict[str, Any] = {}
        for table in ("rope_parameters", "rope_scaling"):
            rope = config.get(table) or {}
            if not isinstance(rope, dict):
                raise ValueError(f"config.json has {table} = {rope!r}; it must be an object.")
            thetas[f"{table}.rope_theta"] = rope.get("rope_theta")
            scalings |= {f"{table}.{key}": rope.get(key) for key in ("rope_type", "type")}
        theta = require_agreement("In config.json RoPE's base", thetas)
        scaling = require_agreement("In config.json RoPE's scaling", scalings)
        if scaling not in (None, "default"):
            raise ValueError(f"config.json has rope_type {scaling!r}; only default is supported.")
        config = {**config, "rope_theta": theta}

        def number(
            key: str, default: Any = None, maximum: float = MAX_DIMENSION, is_integer: bool = True
        ) -> Any:
            value = config.get(key)
            value = default if value is None else value  # null means absent, as in transformers
            if value is None:
                raise ValueError(f"config.json has no {key}, a part of the model's shape.")
            if is_integer and isinstance(value, float) and value.is_integer():
                value = int(value)
            check_number(f"config.json: {key}", value, Range(0, maximum), is_integer)
            return value

        heads = number("num_attention_heads")
        shape = cls(
            vocab_size=number("vocab_size"),
            n_embd=number("hidden_size"),
            n_layer=number("num_hidden_layers", maximum=MAX_LAYERS),
            n_head=heads,
            n_kv_head=number("num_key_value_heads", heads),
            ffn_hidden=number("intermediate_size"),
            block_size=number("max_position_embeddings"),
            dropout=number("attention_dropout", 0.0, is_integer=False),
            rope_theta=number("rope_theta", 10_000.0, math.inf, is_integer=False),
            norm_eps=number("rms_norm_eps", is_integer=False),
        )
        head_size = number("head_dim", shape.head_size)
        if head_size != shape.head_size:
            raise ValueError(
                f"config.json has head_dim {head_size}, but {shape.n_embd} / {shape.n_head} heads "
                f"is {shape.head_size}; only models in which they are equal are supported."
            )
        return shape


PRESETS: dict[str, ModelConfig] = {
    "demo": ModelConfig(
        vocab_size=4_096, n_embd=256, n_layer=3, n_head=8, ffn_hidden=768, block_size=256
    ),
    "10m": ModelConfig(
        vocab_size=4_096, n_embd=320, n_layer=6, n_head=10, ffn_hidden=1_024, block_size=256
    ),
    "124m": ModelConfig(n_embd=640, n_layer=12, n_head=10, ffn_hidden=2_080),
    "350m": ModelConfig(n_embd=1_024, n_layer=22, n_head=8, ffn_hidden=2_816),
    "1b": ModelConfig(),
}


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapter of a fine-tuning run (LoRA)."""

    # rank of the change to each matrix; 0: no adapter, all weights are trained
    rank: Annotated[int, Range(0, 2**24)] = 0
    # the change is scaled by alpha / rank
    alpha: Annotated[float, Range(0, 1e30, exclusive_minimum=True)] = 16.0
    # probability of dropping an input of the adapter in training
    dropout: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.0
    # the matrices that are changed, in every block
    target_modules: tuple[TargetModule, ...] = TARGET_MODULES

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.lora")
        if not self.rank:
            names = ("alpha", "dropout", "target_modules")
            reject_unused(self, "train.lora", names, "train.lora.rank is 0 (no adapter)")
        if not self.target_modules or not set(self.target_modules) <= set(TARGET_MODULES):
            raise ValueError(
                f"train.lora.target_modules is {list(self.target_modules)}; name some of "
                f"{', '.join(TARGET_MODULES)}."
            )

    @property
    def scaling(self) -> float:
        """The factor of the product of an adapter's two matrices."""
        return self.alpha / self.rank
