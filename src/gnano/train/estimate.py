"""Estimates of a training run's memory and speed, from its shape alone; they need no torch.

Memory: the bytes of one rank by part, at the moment when it holds the most.

    forward ──▶ head and loss ──▶ backward ─────────────▶ step
    activations  + logits slice    activations shrink,     optimizer's
    grow         + head's gradient gradients grow          working set

The tensors that a rank holds between two steps are exact arithmetic. The activations follow the
code of the model line by line; a test compares them with PyTorch's memory tracker in a real step on
fake tensors. The memory of PyTorch and the driver (the framework reserve) is an assumption.

Speed: an expectation from the shape and the GPU's data sheet, not a measurement. The time of a
micro-step is the larger of the GPU's time and the time the host needs to launch the kernels, which
limits small models.

    GPU    FLOPs / (peak × `MATMUL_UTILIZATION`) + bytes / (bandwidth × `BANDWIDTH_UTILIZATION`)
    host   kernels × `KERNEL_LAUNCH_SECONDS`

The two utilizations are assumptions, set so that the formula is close to published runs:
docs/planning.md compares them. Slow links between GPUs, slow data and thermal throttling are not
included; a run's progress line shows its real speed after a minute.
"""

from dataclasses import dataclass, replace
from typing import Literal

from gnano.config.model_config import ModelConfig
from gnano.config.train_config import TrainConfig
from gnano.model.flops import (
    Gpu,
    flops_per_token,
    num_active_parameters,
    num_parameters,
    parameters_by_part,
)

SPARE_SHARE = 0.1  # of the device's memory, that `auto` leaves free
CPU_SLICE_BYTES, GPU_SLICE_BYTES = 16 * 2**20, 2 * 2**30  # of the head's fp32 logits at a time
CUDA_CONTEXT_BYTES = 800_000_000  # the driver's context, kernels, cuBLAS
NCCL_BUFFER_BYTES = 700_000_000  # NCCL's buffers, with several ranks
FRAGMENTATION_SHARE = 0.04  # of the allocated bytes, lost between blocks of the allocator
MIN_ZERO2_RANKS = 8  # with fewer, dividing AdamW's work among them saves less than 2 % of a step
MUON_CHUNK_ELEMENTS = 2**26  # elements that Muon processes together

MATMUL_UTILIZATION = 0.65  # of the peak rate, in matrix products and attention of training sizes
BANDWIDTH_UTILIZATION = 0.8  # of the bandwidth, in elementwise operations
KERNEL_LAUNCH_SECONDS = 6e-6
KERNELS_PER_BLOCK = 30  # forward and backward, compiled
# an assumption for the width of `1b`: nanochat measured 1.17 at 1,664, torchtitan 1.28 at 4,096
FP8_SPEEDUP = 1.10


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak memory of a rank, in bytes by part, and the phase in which it occurs."""

    peak_phase: str
    parts: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def allocated_bytes(self) -> int:
        """The value of `torch.cuda.max_memory_allocated`: all but the reserve."""
        return self.total_bytes - self.parts["framework reserve"]


def estimate_memory(
    config: ModelConfig,
    train_config: TrainConfig,
    world_size: int = 1,
    parallel: Literal["ddp", "fsdp"] | None = None,
) -> MemoryEstimate:
    """Return the peak memory of one rank in training.

    `parallel` None means that of the config, where auto counts as ddp. Precision auto counts as
    bf16, compile and reshard_after_forward auto as yes. Raises ValueError where the step cannot be
    split over the ranks.
    """
    parallel = parallel or ("fsdp" if train_config.parallel == "fsdp" else "ddp")
    sharded = parallel == "fsdp" and world_size > 1
    shards = max(1, world_size // train_config.hsdp_replicas) if sharded else 1
    micro_steps = train_config.accumulation_steps(config.block_size, world_size)
    tokens = train_config.micro_batch_size * config.block_size
    value_bytes = 4 if train_config.precision == "fp32" else 2  # of an activation
    block, ends = _count_parameters(config)
    count = trainable = config.n_layer * block + ends
    has_adapter = train_config.lora.rank > 0
    if has_adapter:
        D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
        in_plus_out = {"q_proj": 2 * D, "o_proj": 2 * D, "k_proj": D + K, "v_proj": D + K}
        widths = (in_plus_out.get(layer, D + F) for layer in train_config.lora.target_modules)
        trainable = config.n_layer * train_config.lora.rank * sum(widths)
    full_grads, own_grads = 4 * trainable, 4 * trainable // shards  # fp32
    # FSDP keeps the full gradients of inner micro-steps; DDP allocates its buckets at the start,
    # and they become the gradients in the last micro-step
    earlier_grads = full_grads if micro_steps > 1 else 0
    buckets = full_grads if world_size > 1 and not sharded else 0
    own_grads = 0 if buckets else own_grads
    moments, workspace = _optimizer_bytes(config, train_config, trainable, shards)
    copied = _weight_copy_bytes(config, train_config, value_bytes, sharded)
    kept, entering, ending = _activation_bytes(config, train_config, tokens, value_bytes)
    in_head, after_head = _head_bytes(config, train_config, value_bytes, sharded)
    edge = 0 if has_adapter else 4 * config.vocab_size * config.n_embd  # embedding or head, fp32
    if sharded:  # the head's gradient is scattered before the last block's backward pass, or in it
        after_head = max(after_head - entering, edge)

    copies = "gathered shards" if sharded else "copies of the weights"
    held = {
        "weights": 4 * (count + (trainable if has_adapter else 0)) // shards,
        "gradients": earlier_grads,
        "optimizer moments": moments,
        copies: copied,
        "activations": kept,
        "head and logits slice": 0,
        "exchange buffers": buckets,
        "optimizer's working set": 0,
        "framework reserve": 0,
    }
    phases = {
        "in the head": {"head and logits slice": in_head},
        "entering backward": {"activations": kept + entering, "head and logits slice": after_head},
        "ending backward": {
            "gradients": max(earlier_grads, own_grads),
            copies: copied if sharded else 0,
            "activations": ending,
            # the embedding's gradient, before it is accumulated
            "head and logits slice": edge if earlier_grads else 0,
            "exchange buffers": buckets + (edge if sharded and not earlier_grads else 0),
        },
        "in the optimizer": {
            "gradients": own_grads,
            copies: 0,
            "activations": 0,
            "optimizer's working set": workspace,
        },
    }
    estimates = []
    for phase, changed in phases.items():
        parts = {**held, **changed}
        driver = CUDA_CONTEXT_BYTES + (NCCL_BUFFER_BYTES if world_size > 1 else 0)
        parts["framework reserve"] = driver + int(FRAGMENTATION_SHARE * sum(parts.values()))
        estimates.append(MemoryEstimate(phase, parts))
    return max(estimates, key=lambda estimate: estimate.total_bytes)


def choose_parallelism(
    config: ModelConfig,
    train_config: TrainConfig,
    world_size: int,
    device_bytes: int | None,
    has_peer_access: bool = True,
) -> TrainConfig:
    """Return the config with `parallel` and `reshard_after_forward` chosen where they are auto.

    `device_bytes` is the memory of one device; None (a CPU) counts as enough. Without peer access
    between the GPUs, sharded weights are exchanged too slowly, so auto is ddp even if that does not
    fit. With it, auto is the first of these that fits: ddp with few ranks, fsdp that gathers the
    weights once a step (ZeRO-2), ddp, and else fsdp that gathers them twice for a micro-batch.
    """
    ddp = replace(train_config, parallel="ddp", hsdp_replicas=1, reshard_after_forward="auto")

    def fits(candidate: TrainConfig) -> bool:
        if device_bytes is None:
            return candidate is ddp
        return fits_in_memory(estimate_memory(config, candidate, world_size), device_bytes)

    if train_config.parallel == "ddp":
        return train_config
    fsdp, resharding = replace(train_config, parallel="fsdp"), train_config.reshard_after_forward
    if resharding == "auto":
        kept = replace(fsdp, reshard_after_forward="no")
        fsdp = kept if fits(kept) else replace(fsdp, reshard_after_forward="yes")
    if train_config.parallel == "fsdp" or train_config.hsdp_replicas > 1:
        return fsdp
    if world_size == 1 or device_bytes is None or not has_peer_access:
        return ddp
    gathers_once = fsdp.reshard_after_forward == "no" and fits(fsdp)
    is_faster = gathers_once and world_size >= MIN_ZERO2_RANKS
    return ddp if fits(ddp) and not is_faster else fsdp


def fits_in_memory(estimate: MemoryEstimate, device_bytes: int) -> bool:
    """Return whether the estimate fits a device, with a tenth of its memory to spare."""
    return estimate.total_bytes <= (1 - SPARE_SHARE) * device_bytes


def _count_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return the parameters of a block, and of all outside the blocks with the head's padding."""
    parts = parameters_by_part(config)
    norms = 2 * config.n_embd
    block = (parts["attention"] + parts["feed-forward"]) // config.n_layer + norms
    padding = (config.padded_vocab_size - config.vocab_size) * config.n_embd
    return block, num_parameters(config) + padding - config.n_layer * block


def _optimizer_bytes(
    config: ModelConfig, settings: TrainConfig, trainable: int, shards: int
) -> tuple[int, int]:
    """Return the bytes of the fp32 moments, and of the optimizer's working set.

    AdamW has two moments per parameter and works in place; Muon has one per layer matrix, and needs
    six stacks of matrices of a shape, in the compute dtype.
    """
    if settings.optimizer.kind == "adamw":
        return 8 * trainable // shards, 0
    block, _ = _count_parameters(config)
    moments = 8 * trainable - 4 * config.n_layer * (block - 2 * config.n_embd)
    elements = 2 * config.n_layer * config.n_embd * max(config.ffn_hidden, config.n_embd)
    value_bytes = 4 if settings.precision in ("fp32", "fp16") else 2
    return moments // shards, 6 * value_bytes * min(MUON_CHUNK_ELEMENTS, elements // shards)


def _weight_copy_bytes(
    config: ModelConfig, settings: TrainConfig, element_bytes: int, is_sharded: bool
) -> int:
    """Return the bytes of the weights as the matrix products read them.

    Unsharded weights are cast where they are used, and backward keeps the casts; FP8 casts again.
    Of sharded ones the current block and the next are gathered, and the head; or all of them until
    the end of the step, without `train.reshard_after_forward`.
    """
    block, ends = _count_parameters(config)
    if is_sharded:
        is_kept = settings.reshard_after_forward == "no"
        embedding = 0 if config.tie_embeddings or is_kept else config.vocab_size * config.n_embd
        return element_bytes * ((config.n_layer if is_kept else 2) * block + ends - embedding)
    if element_bytes == 4:
        return 0
    block *= element_bytes
    if settings.precision == "fp8":  # keys' and values'; compiled, gate's and up's in one byte
        keys = config.n_kv_head * config.head_size
        gate_up = config.ffn_hidden if settings.compile != "no" else 0
        block = 2 * config.n_embd * (element_bytes * keys + gate_up)
    return block * (1 if settings.activation_checkpointing else config.n_layer)


def _activation_bytes(
    config: ModelConfig, settings: TrainConfig, tokens: int, element_bytes: int
) -> tuple[int, int, int]:
    """Return the bytes kept for backward, and a block's extra bytes at its start and at its end.

    Per token, backward needs of one block:

                      eager                               compiled
    two norms         x in fp32, normed, × gain           x, × gain
    attention         q, k, v, out, logsumexp             the same, and the output of o_proj
    feed-forward      gate, silu, up, product             gate, up, product
    """
    D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
    if settings.compile != "no":
        block = element_bytes * (7 * D + 2 * K + 3 * F)
    else:
        norms = 2 * 4 * D + 4 * element_bytes * D  # in fp32 the x is the residual stream
        block = norms + element_bytes * (2 * D + 2 * K + 4 * F)
    block += 4 * config.n_head + 2 * 4  # statistics
    if settings.precision == "fp8":
        # it keeps the inputs of its products in one byte instead of two. Compiled: the second
        # norm's output and that of attention; the first norm's stays in bf16 for keys and values,
        # and product is computed again. Eager: out and product, and norms' outputs once a product
        block -= F if settings.compile == "no" else 2 * D + 2 * F
    last_norm = (4 if element_bytes < 4 else 0) * D + 2 * element_bytes * D
    widest = 3 * element_bytes * F  # gradients
    if settings.precision == "fp8" and settings.compile == "no":
        widest += 2 * 4 * F  # that of gate and up together, in fp32 before it is rounded
    in_block = block + widest
    if settings.activation_checkpointing:  # the blocks' inputs; one block is recomputed at a time
        kept = config.n_layer * element_bytes * D + last_norm
        return tokens * kept, tokens * in_block, tokens * in_block
    kept = config.n_layer * block + last_norm
    return tokens * kept, tokens * widest, tokens * in_block


def _head_bytes(
    config: ModelConfig, settings: TrainConfig, element_bytes: int, is_sharded: bool
) -> tuple[int, int]:
    """Return the bytes of head and loss while they compute, and when they return gradients.

    A slice of fp32 logits becomes log-probabilities, probabilities, the one-hot targets and their
    difference: at most four tensors and a mask together; compiled, two in the compute dtype.
    """
    tokens = settings.micro_batch_size * config.block_size
    V, head = config.padded_vocab_size, config.padded_vocab_size * config.n_embd
    cast = 0 if is_sharded or element_bytes == 4 else element_bytes * head
    grad = 0 if settings.lora.rank else 4 * head  # with an adapter it is frozen
    # a sharded head is gathered in the compute dtype, which is also that of its final gradient
    final_grad = element_bytes * head if is_sharded and element_bytes < 4 and grad else 0
    hidden = element_bytes * tokens * config.n_embd
    slice_bytes = CPU_SLICE_BYTES if settings.device == "cpu" else GPU_SLICE_BYTES
    num_slices = -(-tokens // max(1, slice_bytes // (4 * V)))
    rows = -(-tokens // num_slices)
    if settings.compile != "no":
        slices = element_bytes * (2 * rows * V + head)
    else:
        slices = max(17 * rows * V, (4 + element_bytes) * rows * V + element_bytes * head)
    return cast + grad + slices + hidden, 2 * grad + final_grad + hidden


def estimate_tokens_per_s(
    config: ModelConfig, train_config: TrainConfig, gpu: Gpu, gpu_count: int = 1
) -> float:
    """Return tokens per second of all GPUs, with the config's micro-batch and precision."""
    D, K = config.n_embd, config.n_kv_head * config.head_size
    tokens = train_config.micro_batch_size * config.block_size
    # with activation checkpointing a second forward pass: a third of the work
    recompute = 4 / 3 if train_config.activation_checkpointing else 1.0
    work = flops_per_token(config) * recompute / (gpu.bf16_tflops * 1e12 * MATMUL_UTILIZATION)
    # bytes per token outside matrix products; compiled, 2 bytes per value. In a block two norms,
    # two residual sums, RoPE, attention's inputs and outputs; silu × up. Backward: twice
    block = 3 * (13 * D + 4 * K + 3 * config.ffn_hidden) * 2
    logits = 12 * config.padded_vocab_size  # fp32 and bf16, forward and backward
    # casts and gradients of each micro-step, and the moves of each step
    micro_step = 14 * num_active_parameters(config) / tokens
    step = 32 * num_parameters(config) * gpu_count / train_config.tokens_per_step
    weight_bytes = micro_step + step
    bytes_moved = (config.n_layer * block + logits) * recompute + weight_bytes
    seconds = tokens * (
        work + bytes_moved / (gpu.bandwidth_tb_per_s * 1e12 * BANDWIDTH_UTILIZATION)
    )
    if train_config.precision == "fp8":
        seconds /= FP8_SPEEDUP
    host = config.n_layer * KERNELS_PER_BLOCK * KERNEL_LAUNCH_SECONDS * recompute
    return gpu_count * tokens / max(seconds, host)
