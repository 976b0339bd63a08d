"""How fast will it be? An expectation from the shape and the GPU's data sheet, not a measurement.

A rank's time for a micro-step is the larger of two: what the GPU needs, and what the host
needs to hand out the kernels, which is what small models wait for.

    GPU    FLOPs / (bf16 peak × `PRODUCTS`)  +  bytes moved / (bandwidth × `STREAMS`)
    host   kernels × `LAUNCH`

The two shares are assumptions, set so that the formula comes near to published runs:
docs/planning.md has them side by side. It knows nothing of slow links between GPUs, slow data
or a throttled clock; what a run really reaches, its own line tells after a minute.
"""

from gnano.model.arithmetic import flops_per_token, num_active_parameters, num_parameters
from gnano.model.config import ModelConfig
from gnano.model.hardware import Gpu
from gnano.train.config import TrainConfig

MATMUL_UTILIZATION = 0.65  # of its peak rate, in matrix products and attention of training sizes
BANDWIDTH_UTILIZATION = 0.8  # of its bandwidth, in everything that works element by element
KERNEL_LAUNCH_SECONDS = 6e-6  # seconds to hand out a kernel
KERNELS_PER_BLOCK = 30  # a block's, forward and backward, compiled
FP8_SPEEDUP = 1.25  # torchtitan on H100: 8,532 against 6,667 tokens/s (docs/planning.md)


def estimate_tokens_per_s(
    config: ModelConfig, train_config: TrainConfig, gpu: Gpu, gpu_count: int = 1
) -> float:
    """Tokens a second of all GPUs, in the micro-batch, precision and recomputation given."""
    tokens = train_config.micro_batch_size * config.block_size
    again = (
        4 / 3 if train_config.activation_checkpointing else 1.0
    )  # a second forward pass, a third of the work
    work = flops_per_token(config) * again / (gpu.bf16_tflops * 1e12 * MATMUL_UTILIZATION)
    bytes_moved = _activation_traffic_bytes(config) * again + _weight_traffic_bytes(
        config, train_config, gpu_count
    )
    seconds = tokens * (
        work + bytes_moved / (gpu.bandwidth_tb_per_s * 1e12 * BANDWIDTH_UTILIZATION)
    )
    if train_config.precision == "fp8":
        seconds /= FP8_SPEEDUP
    host = config.n_layer * KERNELS_PER_BLOCK * KERNEL_LAUNCH_SECONDS * again
    return gpu_count * tokens / max(seconds, host)


def _activation_traffic_bytes(config: ModelConfig) -> int:
    """Read and written a token outside the matrix products, compiled, in 2 bytes a value."""
    D, K = config.n_embd, config.n_kv_head * config.head_size
    # two norms, two residual sums, rotation, attention's ends; silu × up. Backward: twice that
    block = 3 * (13 * D + 4 * K + 3 * config.ffn_hidden) * 2
    logits = 12 * config.padded_vocab_size  # fp32 and bf16, there and back
    return config.n_layer * block + logits


def _weight_traffic_bytes(config: ModelConfig, train_config: TrainConfig, gpu_count: int) -> float:
    """A token's part of what moves once a micro-step (casts, gradients) and once a step."""
    micro_step = (
        14 * num_active_parameters(config) / (train_config.micro_batch_size * config.block_size)
    )
    step = 32 * num_parameters(config) * gpu_count / train_config.tokens_per_step
    return micro_step + step
