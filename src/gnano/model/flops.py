"""The cost of a model from its shape, and the GPUs that pay it: parameters, FLOPs, bytes, MFU.

    MFU = tokens/s × FLOPs per token / (GPUs × dense bf16 peak)

The peak is that of bf16 products with fp32 accumulation and without sparsity, and it is also the
reference for fp16 and FP8. In an FP8 step only the products of the blocks run in FP8, so no single
peak is its limit; relative to bf16, precisions compare only by their tokens/s, and FP8 may exceed
what bf16 can reach.

A GPU is identified by the exact name that its driver reports. Slices (MIG), laptop GPUs and
regional variants have similar names and other rates: they are unknown, and so is their MFU.
"""

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from gnano.config.model_config import ModelConfig

GIB = 2**30


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


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The specifications of a GPU."""

    name: str  # on the command line
    name_pattern: str  # full match of torch.cuda.get_device_name()
    bf16_tflops: float  # TFLOP/s, dense, fp32 accumulation
    fp8_tflops: float | None = None  # None: no FP8
    memory_gib: float  # GiB visible to torch (total_memory), rounded down
    bandwidth_tb_per_s: float
    max_watts: int  # maximum board power

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return int(self.memory_gib * GIB)


_TABLE = tomllib.loads(Path(__file__).with_name("gpus.toml").read_text("utf-8"))
GPUS = tuple(Gpu(**entry) for entry in _TABLE["gpu"])


def lookup_gpu(device_name: str) -> Gpu | None:
    """Return the GPU with this `torch.cuda.get_device_name()`; None if it is not in the table."""
    return next((gpu for gpu in GPUS if re.fullmatch(gpu.name_pattern, device_name)), None)


def get_gpu(name: str) -> Gpu:
    """Return a GPU by its short name (`h200`; spaces and case are ignored) or its driver's.

    Raises ValueError with the closest names.
    """
    short = re.sub(r"[\s_]+", "-", name.strip().lower())
    gpu = next((gpu for gpu in GPUS if gpu.name == short), None) or lookup_gpu(name)
    if gpu is not None:
        return gpu
    names = [gpu.name for gpu in GPUS]
    close = [known for known in names if short and (known in short or short in known)]
    close = close or difflib.get_close_matches(short, names, n=3)
    meant = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise ValueError(f"There is no GPU {name!r}{meant}. Known GPUs: {', '.join(names)}.")


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return the dense peak FLOP/s of a device in bf16, fp16 or fp8.

    None if unknown: other GPUs, and fp32, whose rate depends on whether TF32 is enabled.
    """
    gpu = lookup_gpu(device_name)
    if gpu is None or precision == "fp32":
        return None
    # fp16 is as fast as bf16 on every GPU of the table
    rate = gpu.fp8_tflops if precision == "fp8" else gpu.bf16_tflops
    return None if rate is None else rate * 1e12


def compute_mfu(
    tokens_per_s: float, config: ModelConfig, num_gpus: int, device_name: str, precision: str
) -> float | None:
    """Return the model FLOPs utilization (PaLM, appendix B), a share of the bf16 peak of all GPUs.

    None, shown as "unknown", for GPUs that are not in the table and for fp32.
    """
    peak = peak_flops(device_name, "bf16" if precision == "fp8" else precision)
    return None if peak is None else tokens_per_s * flops_per_token(config) / (num_gpus * peak)
