"""The shape of a model, the presets of shapes, and the settings of a LoRA adapter.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from gnano.utils.validation import Range, check_field_ranges, reject_unused

VOCAB_MULTIPLE = 128  # of the head's rows while running: GPUs are fast with complete tiles
MAX_DIMENSION, MAX_LAYERS = 2**24, 1_000  # larger values in a file are errors
TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGET_MODULES: tuple[TargetModule, ...] = get_args(TargetModule)


# the fields that every model states; the others say how another family differs
SHAPE = (
    *("vocab_size", "n_embd", "n_layer", "n_head", "n_kv_head", "ffn_hidden", "block_size"),
    *("dropout", "rope_theta", "norm_eps"),
)
Architecture = Literal["llama", "mistral", "qwen2", "qwen3"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How the frequencies of RoPE are changed for a longer context than that of pretraining.

    linear: Chen et al. 2023, arXiv 2306.15595; yarn: Peng et al. 2023, arXiv 2309.00071;
    llama3: by wavelength, https://github.com/meta-llama/llama-models.
    """

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"  # how; none: as pretrained
    factor: Annotated[float, Range(1)] = 1.0  # by which the lowest frequencies are divided
    # llama3, yarn: context of pretraining, in tokens
    original_context: Annotated[int, Range(0, MAX_DIMENSION)] = 0
    # llama3: turns over the context below which a frequency is divided
    low_freq_factor: Annotated[float, Range(0, exclusive_minimum=True)] = 1.0
    # llama3: turns above which it is kept; between them it is interpolated
    high_freq_factor: Annotated[float, Range(0, exclusive_minimum=True)] = 4.0
    # yarn: turns over the context above which a frequency is kept
    beta_fast: Annotated[float, Range(0, exclusive_minimum=True)] = 32.0
    # yarn: turns below which it is divided
    beta_slow: Annotated[float, Range(0, exclusive_minimum=True)] = 1.0
    # yarn: multiplies cosines and sines; 0: 0.1 ln(factor) + 1
    attention_factor: Annotated[float, Range(0)] = 0.0
    truncate: bool = True  # yarn: round the bounds to whole frequencies

    def __post_init__(self) -> None:
        check_field_ranges(self, "model.rope_scaling")
        if self.kind in ("llama3", "yarn") and not self.original_context:
            raise ValueError(
                f"model.rope_scaling.kind {self.kind!r} needs model.rope_scaling.original_context, "
                f"the context of pretraining in tokens."
            )
        if self.kind == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"model.rope_scaling.low_freq_factor {self.low_freq_factor:g} must be below "
                f"high_freq_factor {self.high_freq_factor:g}."
            )


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
    # family of config.json; qwen2 has biases of q, k and v, qwen3 norms of q and k
    architecture: Architecture = "llama"
    head_dim: Annotated[int, Range(0, MAX_DIMENSION)] = 0  # width of a head; 0: n_embd / n_head
    tie_embeddings: bool = False  # use the embedding's matrix as the head
    attention_bias: bool = False  # biases of the projections in attention (llama, qwen3)
    mlp_bias: bool = False  # biases of the projections in the feed-forward layer (llama)
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)

    def __post_init__(self) -> None:
        check_field_ranges(self, "model")
        if self.attention_bias and self.architecture not in ("llama", "qwen3"):
            raise ValueError(
                f"model.attention_bias is true, but {self.architecture} has its own biases "
                f"(model.architecture)."
            )
        if self.mlp_bias and self.architecture != "llama":
            raise ValueError(
                f"model.mlp_bias is true, but {self.architecture} has none (model.architecture)."
            )
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim is {self.head_dim}; it must be even.")
        if not self.head_dim and (self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2):
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON; those of other families only where they are not Llama's."""
        llama = asdict(ModelConfig())
        fields = asdict(self).items()
        return {key: value for key, value in fields if key in SHAPE or value != llama[key]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what `to_dict` returned; raise ValueError or TypeError for anything else."""
        scaling = content.get("rope_scaling", {})
        return cls(**{**content, "rope_scaling": RopeScaling(**scaling)})

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return self.attention_bias or self.architecture == "qwen2"

    @property
    def has_qk_norm(self) -> bool:
        """Whether each head's queries and keys are normalized before RoPE."""
        return self.architecture == "qwen3"

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the head while running; on disk it has exactly `vocab_size`."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


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
