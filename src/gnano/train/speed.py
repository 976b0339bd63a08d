"""How fast will it be? An expectation from the shape and the GPU's data sheet, not a measurement.

A rank's time for a micro-step is the larger of two: what the GPU needs, and what the host
needs to hand out the kernels, which is what small models wait for.

    GPU    FLOPs / (bf16 peak × `PRODUCTS`)  +  bytes moved / (bandwidth × `STREAMS`)
    host   kernels × `LAUNCH`

The two shares are assumptions, set so that the formula comes near to published runs:
docs/planning.md has them side by side. It knows nothing of slow links between GPUs, slow data
or a throttled clock; what a run really reaches, its own line tells after a minute.
"""

from gnano.model.arithmetic import active_parameters, flops_per_token, num_parameters
from gnano.model.config import ModelConfig
from gnano.model.hardware import Gpu
from gnano.train.config import TrainConfig

PRODUCTS = 0.65  # of its peak rate, in matrix products and attention of training sizes
STREAMS = 0.8  # of its bandwidth, in everything that works element by element
LAUNCH = 6e-6  # seconds to hand out a kernel
KERNELS = 30  # a block's, forward and backward, compiled
FP8_GAIN = 1.25  # torchtitan on H100: 8,532 against 6,667 tokens/s (docs/planning.md)


def expected_tokens_per_s(
    config: ModelConfig, settings: TrainConfig, gpu: Gpu, gpus: int = 1
) -> float:
    """Tokens a second of all GPUs, in the micro-batch, precision and recomputation given."""
    tokens = settings.micro_batch * config.block_size
    again = 4 / 3 if settings.recompute else 1.0  # a second forward pass, a third of the work
    work = flops_per_token(config) * again / (gpu.bf16 * 1e12 * PRODUCTS)
    bytes_moved = _activation_bytes(config) * again + _weight_bytes(config, settings, gpus)
    seconds = tokens * (work + bytes_moved / (gpu.bandwidth * 1e12 * STREAMS))
    if settings.precision == "fp8":
        seconds /= FP8_GAIN
    host = config.n_layer * KERNELS * LAUNCH * again
    return gpus * tokens / max(seconds, host)


def _activation_bytes(config: ModelConfig) -> int:
    """Read and written a token outside the matrix products, compiled, in 2 bytes a value."""
    D, K = config.n_embd, config.n_kv_head * config.head_size
    # two norms, two residual sums, rotation, attention's ends; silu × up. Backward: twice that
    block = 3 * (13 * D + 4 * K + 3 * config.ffn_hidden) * 2
    logits = 12 * config.padded_vocab_size  # fp32 and bf16, there and back
    return config.n_layer * block + logits


def _weight_bytes(config: ModelConfig, settings: TrainConfig, gpus: int) -> float:
    """A token's part of what moves once a micro-step (casts, gradients) and once a step."""
    micro_step = 14 * active_parameters(config) / (settings.micro_batch * config.block_size)
    step = 32 * num_parameters(config) * gpus / settings.tokens_per_step
    return micro_step + step
