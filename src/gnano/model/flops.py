"""The cost of a model from its shape: parameters, FLOPs and bytes."""

from gnano.config.model_config import ModelConfig


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Return the parameters of each part; the parts add up to `GPT.num_parameters()`."""
    D, E = config.n_embd, config.head_size
    attention = 2 * D * config.n_head * E + 2 * D * config.n_kv_head * E
    return {
        "embedding": config.vocab_size * D,
        "attention": config.n_layer * attention,
        "feed-forward": config.n_layer * 3 * D * config.ffn_hidden,
        "norms": (2 * config.n_layer + 1) * D,
        "head": config.vocab_size * D,
    }


def num_parameters(config: ModelConfig) -> int:
    """Return the number of parameters."""
    return sum(parameters_by_part(config).values())


def num_active_parameters(config: ModelConfig) -> int:
    """Return the weights read per token: all but the input embedding, of which it is one row."""
    return num_parameters(config) - parameters_by_part(config)["embedding"]


def flops_per_token(config: ModelConfig, seq_len: int | None = None) -> int:
    """Return forward and backward FLOPs per token at this sequence length (default: the context).

    6·(N − N_embedding) + 12·L·H·d_head·T, the usual count (PaLM, appendix B): attention counts
    as if it were not causal, and recomputation does not count.
    """
    T = seq_len or config.block_size
    attention = 12 * config.n_layer * config.n_head * config.head_size * T
    return 6 * num_active_parameters(config) + attention


def kv_cache_bytes_per_token(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Return the bytes of one token's keys and values in all layers; bf16 by default."""
    return 2 * config.n_layer * config.n_kv_head * config.head_size * bytes_per_value
