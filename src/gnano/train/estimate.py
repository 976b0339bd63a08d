"""How much memory does a rank need? Its bytes by part, at the moment when it holds the most.

    forward ──▶ head and loss ──▶ backward ─────────────▶ step
    activations  + logits slice    activations shrink,     optimizer's
    grow         + head's gradient gradients grow          working set

What a rank holds between two steps is exact arithmetic. The activations follow the code of the
model line by line (`_block_bytes`); a test runs the real training step on fake tensors under
PyTorch's memory tracker and holds this to what is seen there. What PyTorch and the driver hold
besides is an assumption (`_reserve`). Nothing here needs torch, so it can be asked before.

How fast will it be? An expectation from the shape and the GPU's data sheet, not a measurement.

A rank's time for a micro-step is the larger of two: what the GPU needs, and what the host
needs to hand out the kernels, which is what small models wait for.

    GPU    FLOPs / (bf16 peak × `PRODUCTS`)  +  bytes moved / (bandwidth × `STREAMS`)
    host   kernels × `LAUNCH`

The two shares are assumptions, set so that the formula comes near to published runs:
docs/planning.md has them side by side. It knows nothing of slow links between GPUs, slow data
or a throttled clock; what a run really reaches, its own line tells after a minute.
"""

from dataclasses import dataclass
from typing import Literal

from gnano.config.model_config import ModelConfig
from gnano.config.train_config import TrainConfig
from gnano.model.flops import (
    flops_per_token,
    num_active_parameters,
    num_parameters,
    parameters_by_part,
)
from gnano.model.gpu_specs import Gpu

SPARE_SHARE = 0.1  # of the device, that `auto` leaves free
CPU_SLICE_BYTES, GPU_SLICE_BYTES = 16 * 2**20, 512 * 2**20  # of the head's fp32 logits at a time
CUDA_CONTEXT_BYTES = 800_000_000  # the driver's context, kernels, cuBLAS
NCCL_BUFFER_BYTES = 700_000_000  # NCCL's buffers, where there are several ranks
FRAGMENTATION_SHARE = 0.04  # of what is allocated, lost between blocks of the allocator
MUON_CHUNK_ELEMENTS = 2**26  # elements that Muon works on at once


@dataclass(frozen=True)
class MemoryEstimate:
    """A rank's bytes by part, and when it holds so many."""

    peak_phase: str
    parts: dict[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def allocated_bytes(self) -> int:
        """What `torch.cuda.max_memory_allocated` would say: all but the reserve."""
        return self.total_bytes - self.parts["framework reserve"]


def estimate_memory(
    config: ModelConfig,
    train_config: TrainConfig,
    world_size: int = 1,
    parallel: Literal["ddp", "fsdp"] | None = None,
) -> MemoryEstimate:
    """The peak of one rank in training, in bytes: that of the moment which needs most.

    `parallel` None is `settings.parallel`, of which `auto` counts as ddp. A precision of
    `auto` counts as bf16, `compile` of `auto` as yes: what they are on a GPU. Raises
    ValueError where the step does not split over the ranks.
    """
    parallel = parallel or ("fsdp" if train_config.parallel == "fsdp" else "ddp")
    sharded = parallel == "fsdp" and world_size > 1
    shards = max(1, world_size // train_config.hsdp_replicas) if sharded else 1
    micro_steps = train_config.accumulation_steps(config.block_size, world_size)
    tokens = train_config.micro_batch_size * config.block_size
    value = 4 if train_config.precision == "fp32" else 2  # bytes of an activation
    block, ends = _count_parameters(config)
    count = config.n_layer * block + ends

    learned = _count_trainable(config, train_config)
    held_weights = count + (learned if train_config.lora.rank else 0)
    whole, share = 4 * learned, 4 * learned // shards  # fp32, of what learns; of this rank's
    # FSDP keeps the gradients of inner micro-steps whole; DDP's buckets are there from the start,
    # and become the gradients in the last micro-step
    earlier = whole if micro_steps > 1 else 0
    buckets = whole if world_size > 1 and not sharded else 0
    own = 0 if buckets else share
    copied = _weight_copy_bytes(config, train_config, value, sharded)
    kept, entering, ending = _activation_bytes(config, train_config, tokens, value)
    in_head, after_head = _head_bytes(config, train_config, value, sharded)
    # before it is added
    embedding = (
        4 * config.vocab_size * config.n_embd if earlier and not train_config.lora.rank else 0
    )

    copies = "gathered shards" if sharded else "copies of the weights"
    held = {
        "weights": 4 * held_weights // shards,
        "gradients": earlier,
        "optimizer moments": _optimizer_state_bytes(config, train_config) // shards,
        copies: copied,
        "activations": kept,
        "head and logits slice": 0,
        "exchange buffers": buckets,
        "optimizer's working set": 0,
        "framework reserve": 0,
    }
    moments = {
        "in the head": {"head and logits slice": in_head},
        "entering backward": {"activations": kept + entering, "head and logits slice": after_head},
        "ending backward": {
            "gradients": max(earlier, own),
            copies: copied if sharded else 0,
            "activations": ending,
            "head and logits slice": embedding,
            "exchange buffers": buckets + (4 * min(ends, learned) if sharded else 0),
        },
        "in the optimizer": {
            "gradients": own,
            copies: 0,
            "activations": 0,
            "optimizer's working set": _optimizer_workspace_bytes(config, train_config, shards),
        },
    }
    found = []
    for moment, changed in moments.items():
        parts = {**held, **changed}
        parts["framework reserve"] = _framework_reserve_bytes(sum(parts.values()), world_size)
        found.append(MemoryEstimate(moment, parts))
    return max(found, key=lambda memory: memory.total_bytes)


def choose_parallelism(
    config: ModelConfig, train_config: TrainConfig, world_size: int, device_bytes: int | None
) -> Literal["ddp", "fsdp"]:
    """What `train.parallel` asks for; for `auto` ddp where it fits with room to spare, else fsdp.

    `device_bytes` is the memory of one device; None (a CPU) counts as enough.
    """
    if train_config.parallel != "auto":
        return train_config.parallel
    if train_config.hsdp_replicas > 1:
        return "fsdp"
    if world_size == 1 or device_bytes is None:
        return "ddp"
    return (
        "ddp"
        if fits_in_memory(estimate_memory(config, train_config, world_size, "ddp"), device_bytes)
        else "fsdp"
    )


def fits_in_memory(estimate: MemoryEstimate, device_bytes: int) -> bool:
    """Whether a device of so many bytes has room for it, with a tenth to spare."""
    return estimate.total_bytes <= (1 - SPARE_SHARE) * device_bytes


def _count_parameters(config: ModelConfig) -> tuple[int, int]:
    """Parameters of a block, and of all outside the blocks, the head's padding included."""
    parts = parameters_by_part(config)
    norms = 2 * config.n_embd
    block = (parts["attention"] + parts["feed-forward"]) // config.n_layer + norms
    padding = (config.padded_vocab_size - config.vocab_size) * config.n_embd
    return block, num_parameters(config) + padding - config.n_layer * block


def _count_trainable(config: ModelConfig, settings: TrainConfig) -> int:
    """Parameters that learn: all of them, padding included, or those of the adapters."""
    if not settings.lora.rank:
        block, ends = _count_parameters(config)
        return config.n_layer * block + ends
    D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
    across = {"q_proj": 2 * D, "o_proj": 2 * D, "k_proj": D + K, "v_proj": D + K}
    ends_of = (across.get(layer, D + F) for layer in settings.lora.target_modules)
    return config.n_layer * settings.lora.rank * sum(ends_of)


def _optimizer_state_bytes(config: ModelConfig, settings: TrainConfig) -> int:
    """fp32: two of each parameter for AdamW, one of each matrix of the layers for Muon."""
    learned = _count_trainable(config, settings)
    if settings.optimizer.kind == "adamw":
        return 8 * learned
    block, _ = _count_parameters(config)
    return 8 * learned - 4 * config.n_layer * (block - 2 * config.n_embd)


def _weight_copy_bytes(
    config: ModelConfig, settings: TrainConfig, element_bytes: int, is_sharded: bool
) -> int:
    """The weights as the matrix products read them.

    In one piece they are cast where they are used, and backward keeps the casts; FP8
    casts again. Sharded, the block at work and the next are gathered; embedding and head stay so.
    """
    block, ends = _count_parameters(config)
    if is_sharded:
        return element_bytes * (2 * block + ends)
    if element_bytes == 4:
        return 0
    if settings.precision == "fp8":  # all but the key and value projections
        block = 2 * config.n_embd * config.n_kv_head * config.head_size
    return element_bytes * block * (1 if settings.activation_checkpointing else config.n_layer)


def _activation_bytes(
    config: ModelConfig, settings: TrainConfig, tokens: int, element_bytes: int
) -> tuple[int, int, int]:
    """Kept for backward; and beside it, what a block works with as backward begins; as it ends."""
    D, F = config.n_embd, config.ffn_hidden
    block = _block_activation_bytes(
        config, element_bytes, settings.compile != "no", settings.precision == "fp8"
    )
    last_norm = (4 if element_bytes < 4 else 0) * D + 2 * element_bytes * D
    at_work = block + 3 * element_bytes * F  # its activations, and the gradients of the widest
    if (
        settings.activation_checkpointing
    ):  # the blocks' inputs alone; a block is whole again while it is at work
        kept = config.n_layer * element_bytes * D + last_norm
        return tokens * kept, tokens * at_work, tokens * at_work
    kept = config.n_layer * block + last_norm
    return tokens * kept, tokens * 3 * element_bytes * F, tokens * at_work


def _block_activation_bytes(
    config: ModelConfig, element_bytes: int, compiled: bool, fp8: bool
) -> int:
    """What backward needs of one block, a token.

                      eager                               compiled
    two norms         x in fp32, normed, × gain           x, × gain
    attention         q, k, v, out (twice), logsumexp     the same, and what o_proj gave
    feed-forward      gate, silu, up, product             gate, up, product
    """
    D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
    statistics = 4 * config.n_head + 2 * 4
    if compiled:
        kept = element_bytes * (7 * D + 2 * K + 3 * F)
    else:
        norms = 2 * 4 * D + 4 * element_bytes * D  # in fp32 the x of the norm is the stream's own
        kept = norms + element_bytes * (3 * D + 2 * K + 4 * F)
    # FP8 keeps the inputs of its products in one byte instead of two: out and product. A norm's
    # output goes to several, which keep one each, and to the key and value projections in bf16
    return kept + statistics - (F if fp8 else 0)


def _head_bytes(
    config: ModelConfig, settings: TrainConfig, element_bytes: int, is_sharded: bool
) -> tuple[int, int]:
    """What head and loss hold while they compute; and as they hand their gradients on.

    A slice of fp32 logits S becomes log-probabilities, probabilities, the targets' ones and their
    difference, at most four and a mask at once; compiled, two in the compute dtype.
    """
    tokens = settings.micro_batch_size * config.block_size
    V, head = config.padded_vocab_size, config.padded_vocab_size * config.n_embd
    # a sharded head is gathered in the compute dtype, and its gradient is of that
    cast, grad = (
        (0, element_bytes * head)
        if is_sharded
        else (0 if element_bytes == 4 else element_bytes * head, 4 * head)
    )
    if settings.lora.rank:
        grad = 0  # it is frozen
    hidden = element_bytes * tokens * config.n_embd
    allowed = CPU_SLICE_BYTES if settings.device == "cpu" else GPU_SLICE_BYTES
    number = -(-tokens // max(1, allowed // (4 * V)))
    rows = -(-tokens // number)
    if settings.compile != "no":
        slices = element_bytes * (2 * rows * V + head)
    else:
        slices = max(17 * rows * V, (4 + element_bytes) * rows * V + element_bytes * head)
    return cast + grad + slices + hidden, 2 * grad + hidden


def _optimizer_workspace_bytes(config: ModelConfig, settings: TrainConfig, shards: int) -> int:
    """AdamW is one kernel, in place. Muon stacks matrices of one shape: six fp32 stacks at once."""
    if settings.optimizer.kind == "adamw":
        return 0
    alike = 2 * config.n_layer * config.n_embd * max(config.ffn_hidden, config.n_embd)
    return 6 * 4 * min(MUON_CHUNK_ELEMENTS, alike // shards)


def _framework_reserve_bytes(allocated: int, world_size: int) -> int:
    """An assumption: what is held beside the tensors."""
    return (
        CUDA_CONTEXT_BYTES
        + (NCCL_BUFFER_BYTES if world_size > 1 else 0)
        + int(FRAGMENTATION_SHARE * allocated)
    )


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
