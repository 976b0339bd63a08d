"""How much memory does a rank need? Its bytes by part, at the moment when it holds the most.

    forward ──▶ head and loss ──▶ backward ─────────────▶ step
    activations  + logits slice    activations shrink,     optimizer's
    grow         + head's gradient gradients grow          working set

What a rank holds between two steps is exact arithmetic. The activations follow the code of the
model line by line (`_block_bytes`); a test runs the real training step on fake tensors under
PyTorch's memory tracker and holds this to what is seen there. What PyTorch and the driver hold
besides is an assumption (`_reserve`). Nothing here needs torch, so it can be asked before.
"""

from dataclasses import dataclass
from typing import Literal

from gnano.model.arithmetic import num_parameters, parameters
from gnano.model.config import ModelConfig
from gnano.train.config import TrainConfig

SPARE = 0.1  # of the device, that `auto` leaves free
CPU_SLICE_BYTES, GPU_SLICE_BYTES = 16 * 2**20, 512 * 2**20  # of the head's fp32 logits at a time
CONTEXT = 800_000_000  # the driver's context, kernels, cuBLAS
CHANNELS = 700_000_000  # NCCL's buffers, where there are several ranks
FRAGMENTED = 0.04  # of what is allocated, lost between blocks of the allocator
MUON_AT_ONCE = 2**26  # elements that Muon works on at once


@dataclass(frozen=True)
class Memory:
    """A rank's bytes by part, and when it holds so many."""

    moment: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def allocated(self) -> int:
        """What `torch.cuda.max_memory_allocated` would say: all but the reserve."""
        return self.total - self.parts["framework reserve"]


def predict(
    config: ModelConfig,
    settings: TrainConfig,
    ranks: int = 1,
    parallel: Literal["ddp", "fsdp"] | None = None,
) -> Memory:
    """The peak of one rank in training, in bytes: that of the moment which needs most.

    `parallel` None is `settings.parallel`, of which `auto` counts as ddp. A precision of
    `auto` counts as bf16, `compile` of `auto` as yes: what they are on a GPU. Raises
    ValueError where the step does not split over the ranks.
    """
    parallel = parallel or ("fsdp" if settings.parallel == "fsdp" else "ddp")
    sharded = parallel == "fsdp" and ranks > 1
    shards = max(1, ranks // settings.replicas) if sharded else 1
    micro_steps = settings.accumulation(config.block_size, ranks)
    tokens = settings.micro_batch * config.block_size
    value = 4 if settings.precision == "fp32" else 2  # bytes of an activation
    block, ends = _counts(config)
    count = config.n_layer * block + ends

    learned = _learned(config, settings)
    held_weights = count + (learned if settings.lora.rank else 0)
    whole, share = 4 * learned, 4 * learned // shards  # fp32, of what learns; of this rank's
    # FSDP keeps the gradients of inner micro-steps whole; DDP's buckets are there from the start,
    # and become the gradients in the last micro-step
    earlier = whole if micro_steps > 1 else 0
    buckets = whole if ranks > 1 and not sharded else 0
    own = 0 if buckets else share
    copied = _copy_bytes(config, settings, value, sharded)
    kept, entering, ending = _activation_bytes(config, settings, tokens, value)
    in_head, after_head = _head_bytes(config, settings, value, sharded)
    # before it is added
    embedding = 4 * config.vocab_size * config.n_embd if earlier and not settings.lora.rank else 0

    copies = "gathered shards" if sharded else "copies of the weights"
    held = {
        "weights": 4 * held_weights // shards,
        "gradients": earlier,
        "optimizer moments": _moment_bytes(config, settings) // shards,
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
            "optimizer's working set": _working_bytes(config, settings, shards),
        },
    }
    found = []
    for moment, changed in moments.items():
        parts = {**held, **changed}
        parts["framework reserve"] = _reserve(sum(parts.values()), ranks)
        found.append(Memory(moment, parts))
    return max(found, key=lambda memory: memory.total)


def choose_parallel(
    config: ModelConfig, settings: TrainConfig, ranks: int, device_bytes: int | None
) -> Literal["ddp", "fsdp"]:
    """What `train.parallel` asks for; for `auto` ddp where it fits with room to spare, else fsdp.

    `device_bytes` is the memory of one device; None (a CPU) counts as enough.
    """
    if settings.parallel != "auto":
        return settings.parallel
    if settings.replicas > 1:
        return "fsdp"
    if ranks == 1 or device_bytes is None:
        return "ddp"
    return "ddp" if fits(predict(config, settings, ranks, "ddp"), device_bytes) else "fsdp"


def fits(memory: Memory, device_bytes: int) -> bool:
    """Whether a device of so many bytes has room for it, with a tenth to spare."""
    return memory.total <= (1 - SPARE) * device_bytes


def _counts(config: ModelConfig) -> tuple[int, int]:
    """Parameters of a block, and of all outside the blocks, the head's padding included."""
    parts = parameters(config)
    norms = 2 * config.n_embd
    block = (parts["attention"] + parts["feed-forward"]) // config.n_layer + norms
    padding = (config.padded_vocab_size - config.vocab_size) * config.n_embd
    return block, num_parameters(config) + padding - config.n_layer * block


def _learned(config: ModelConfig, settings: TrainConfig) -> int:
    """Parameters that learn: all of them, padding included, or those of the adapters."""
    if not settings.lora.rank:
        block, ends = _counts(config)
        return config.n_layer * block + ends
    D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
    across = {"q_proj": 2 * D, "o_proj": 2 * D, "k_proj": D + K, "v_proj": D + K}
    ends_of = (across.get(layer, D + F) for layer in settings.lora.layers)
    return config.n_layer * settings.lora.rank * sum(ends_of)


def _moment_bytes(config: ModelConfig, settings: TrainConfig) -> int:
    """fp32: two of each parameter for AdamW, one of each matrix of the layers for Muon."""
    learned = _learned(config, settings)
    if settings.optimizer.kind == "adamw":
        return 8 * learned
    block, _ = _counts(config)
    return 8 * learned - 4 * config.n_layer * (block - 2 * config.n_embd)


def _copy_bytes(config: ModelConfig, settings: TrainConfig, value: int, sharded: bool) -> int:
    """The weights as the matrix products read them.

    In one piece they are cast where they are used, and backward keeps the casts; FP8
    casts again. Sharded, the block at work and the next are gathered; embedding and head stay so.
    """
    block, ends = _counts(config)
    if sharded:
        return value * (2 * block + ends)
    if value == 4:
        return 0
    if settings.precision == "fp8":  # all but the key and value projections
        block = 2 * config.n_embd * config.n_kv_head * config.head_size
    return value * block * (1 if settings.recompute else config.n_layer)


def _activation_bytes(
    config: ModelConfig, settings: TrainConfig, tokens: int, value: int
) -> tuple[int, int, int]:
    """Kept for backward; and beside it, what a block works with as backward begins; as it ends."""
    D, F = config.n_embd, config.ffn_hidden
    block = _block_bytes(config, value, settings.compile != "no", settings.precision == "fp8")
    last_norm = (4 if value < 4 else 0) * D + 2 * value * D
    at_work = block + 3 * value * F  # its activations, and the gradients of the widest
    if settings.recompute:  # the blocks' inputs alone; a block is whole again while it is at work
        kept = config.n_layer * value * D + last_norm
        return tokens * kept, tokens * at_work, tokens * at_work
    kept = config.n_layer * block + last_norm
    return tokens * kept, tokens * 3 * value * F, tokens * at_work


def _block_bytes(config: ModelConfig, value: int, compiled: bool, fp8: bool) -> int:
    """What backward needs of one block, a token.

                      eager                               compiled
    two norms         x in fp32, normed, × gain           x, × gain
    attention         q, k, v, out (twice), logsumexp     the same, and what o_proj gave
    feed-forward      gate, silu, up, product             gate, up, product
    """
    D, F, K = config.n_embd, config.ffn_hidden, config.n_kv_head * config.head_size
    statistics = 4 * config.n_head + 2 * 4
    if compiled:
        kept = value * (7 * D + 2 * K + 3 * F)
    else:
        norms = 2 * 4 * D + 4 * value * D  # in fp32 the x of the norm is the stream's own
        kept = norms + value * (3 * D + 2 * K + 4 * F)
    # FP8 keeps the inputs of its products in one byte instead of two: out and product. A norm's
    # output goes to several, which keep one each, and to the key and value projections in bf16
    return kept + statistics - (F if fp8 else 0)


def _head_bytes(
    config: ModelConfig, settings: TrainConfig, value: int, sharded: bool
) -> tuple[int, int]:
    """What head and loss hold while they compute; and as they hand their gradients on.

    A slice of fp32 logits S becomes log-probabilities, probabilities, the targets' ones and their
    difference, at most four and a mask at once; compiled, two in the compute dtype.
    """
    tokens = settings.micro_batch * config.block_size
    V, head = config.padded_vocab_size, config.padded_vocab_size * config.n_embd
    # a sharded head is gathered in the compute dtype, and its gradient is of that
    cast, grad = (0, value * head) if sharded else (0 if value == 4 else value * head, 4 * head)
    if settings.lora.rank:
        grad = 0  # it is frozen
    hidden = value * tokens * config.n_embd
    allowed = CPU_SLICE_BYTES if settings.device == "cpu" else GPU_SLICE_BYTES
    number = -(-tokens // max(1, allowed // (4 * V)))
    rows = -(-tokens // number)
    if settings.compile != "no":
        slices = value * (2 * rows * V + head)
    else:
        slices = max(17 * rows * V, (4 + value) * rows * V + value * head)
    return cast + grad + slices + hidden, 2 * grad + hidden


def _working_bytes(config: ModelConfig, settings: TrainConfig, shards: int) -> int:
    """AdamW is one kernel, in place. Muon stacks matrices of one shape: six fp32 stacks at once."""
    if settings.optimizer.kind == "adamw":
        return 0
    alike = 2 * config.n_layer * config.n_embd * max(config.ffn_hidden, config.n_embd)
    return 6 * 4 * min(MUON_AT_ONCE, alike // shards)


def _reserve(allocated: int, ranks: int) -> int:
    """An assumption: what is held beside the tensors."""
    return CONTEXT + (CHANNELS if ranks > 1 else 0) + int(FRAGMENTED * allocated)
