"""The settings of training: the loop, the optimizer, the learning rate, stability.

The learning rate rises linearly, then decays in one of three ways:

    cosine  /‾‾╲__      half a cosine (Loshchilov & Hutter 2017)
    wsd     /‾‾‾‾‾╲     constant at the peak, then linear at the end (MiniCPM, arXiv 2404.06395)
    linear  /╲___       linear from the peak (arXiv 2310.07831)
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.config.model_config import LoraConfig
from gnano.utils.files import expand_path_fields
from gnano.utils.formatting import plural
from gnano.utils.validation import THREAD_RANGE, Range, check_field_ranges, reject_unused

BELOW_ONE = Range(0, 1, exclusive_maximum=True)
MAX_STEPS = 99_999_999  # eight digits, as in the name of a checkpoint


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    """The learning rate of each step."""

    kind: Literal["cosine", "wsd", "linear"] = "cosine"  # shape of the decay after the warm-up
    # learning rate at the end of warm-up
    peak: Annotated[float, Range(0, exclusive_minimum=True)] = 3e-4
    # steps of linear rise from 0; below 1: share of all steps
    warmup: Annotated[float, Range(0)] = 0.05
    floor: Annotated[float, Range(0, 1)] = 0.1  # last learning rate, as a share of the peak
    # wsd: share of all steps in which it decays, at the end
    decay: Annotated[float, Range(0, 1)] = 0.3

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.schedule")
        if self.kind != "wsd":
            reason = f"train.schedule.kind is {self.kind!r}"
            reject_unused(self, "train.schedule", ("decay",), reason)
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(
                f"train.schedule.warmup is {self.warmup}; it must be an integer number of steps, "
                f"or less than 1 for a share of all steps."
            )

    def warmup_steps(self, total_steps: int) -> int:
        """Return the number of warm-up steps."""
        return round(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)

    def lr_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a step from 0 to total_steps - 1."""
        start = self.warmup_steps(total_steps)
        if step < start:
            return self.peak * (step + 1) / start
        if self.kind == "wsd":
            start = max(start, total_steps - 1 - round(self.decay * total_steps))
        done = max(step - start, 0) / max(total_steps - 1 - start, 1)
        height = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.peak * (self.floor + (1 - self.floor) * height)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its hyperparameters."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the layers' matrices, else AdamW
    beta1: Annotated[float, BELOW_ONE] = 0.9  # AdamW: decay of the running mean of the gradient
    beta2: Annotated[float, BELOW_ONE] = 0.95  # AdamW: the same for its square
    # AdamW: added to the root of the mean square
    eps: Annotated[float, Range(0, 1, exclusive_minimum=True)] = 1e-8
    # shrinkage of the matrices per step, times the learning rate
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.1
    # learning rate of the embedding, as a multiple of the schedule's
    embedding_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = 1.0
    # learning rate of the head, as a multiple of the schedule's
    head_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = 1.0
    momentum: Annotated[float, BELOW_ONE] = 0.95  # Muon: decay of the running mean of the gradient
    # Muon: iterations of the orthogonalization
    ns_steps: Annotated[int, Range(1, 8)] = 5

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.optimizer")
        if self.kind != "muon":
            reason = f"train.optimizer.kind is {self.kind!r}"
            reject_unused(self, "train.optimizer", ("momentum", "ns_steps"), reason)


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """What happens when steps fail or the run hangs."""

    # skipped steps in a row after which the run rolls back and skips their data
    rollback_after: Annotated[int, Range(1)] = 10
    max_rollbacks: Annotated[int, Range(0)] = 3  # rollbacks after which the run fails
    # robust z-score of loss or gradient norm above which a step is skipped; 0: off
    spike_threshold: Annotated[float, Range(0)] = 0.0
    spike_window: Annotated[int, Range(1, 2**24)] = 128  # earlier steps for the z-score
    # seconds in one phase after which the run ends as hung; 0: no limit
    stall_timeout: Annotated[float, Range(0)] = 1_800.0

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.stability")
        if not self.spike_threshold:
            reject_unused(
                self, "train.stability", ("spike_window",), "train.stability.spike_threshold is 0"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of the training loop."""

    steps: Annotated[int, Range(1, MAX_STEPS)] = 1_000  # optimizer steps of the run
    # tokens of a step, over all micro-batches and ranks
    tokens_per_step: Annotated[int, Range(1, 2**40)] = 16_384
    micro_batch_size: Annotated[int, Range(1, 2**24)] = 16  # sequences per micro-batch of a rank
    # largest gradient norm; a larger gradient is scaled down to it
    grad_clip: Annotated[float, Range(0, exclusive_minimum=True)] = 1.0
    # dtype of the matrix products; weights stay fp32; auto: fp32 or bf16, by a measurement
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    device: str = "auto"  # cpu, cuda, cuda:1, mps …; auto: a CUDA GPU if there is one
    threads: Annotated[int, THREAD_RANGE] = 0  # CPU threads of a rank; 0: one per core
    # several ranks: ddp replicates the model, fsdp shards it; auto: by memory and links
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    # fsdp: release gathered weights until the backward pass; no: ZeRO-2; auto: no if it fits
    reshard_after_forward: Literal["auto", "yes", "no"] = "auto"
    # fsdp: groups of ranks that each hold the complete model (HSDP)
    hsdp_replicas: Annotated[int, Range(1, 2**24)] = 1
    # dtype of the gradients that ranks exchange; bf16 halves the bytes, for slow links
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["auto", "yes", "no"] = "auto"  # torch.compile the blocks; auto: if faster
    # recompute activations in the backward pass: less memory, more time
    activation_checkpointing: bool = False
    # on a GPU only kernels that give the same bits again, some of them slower; a CPU always does
    deterministic: bool = False
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # seed of initial weights and dropout
    init_from: str = ""  # initial weights: a run, a checkpoint or a Hugging Face folder
    eval_every: Annotated[int, Range(0)] = 100  # steps between held-out losses; 0: only at the end
    # held-out tokens per evaluation; at the end all of them
    eval_tokens: Annotated[int, Range(1)] = 32_768
    eval_tasks: tuple[str, ...] = ()  # evaluated during training, as by gnano eval: names or files
    eval_tasks_every: Annotated[int, Range(0)] = 0  # steps between task evaluations; 0: at the end
    # items per task, spread over all of it; 0: all
    eval_tasks_limit: Annotated[int, Range(0)] = 500
    save_every: Annotated[int, Range(1)] = 500  # steps between checkpoints
    keep_last: Annotated[int, Range(1)] = 2  # newest checkpoints to keep
    # steps: checkpoints at multiples of it are never removed; 0: none
    keep_every: Annotated[int, Range(0)] = 0
    keep_best: bool = True  # keep the checkpoint with the lowest held-out loss
    # held-out losses in a row without a new best after which the run ends; 0: off
    early_stopping_patience: Annotated[int, Range(0)] = 0
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # also get the metrics
    profile_start: Annotated[int, Range(0)] = 0  # first step that torch's profiler records; 0: none
    profile_steps: Annotated[int, Range(1)] = 3  # steps to record
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: LRSchedule = field(default_factory=LRSchedule)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    # preferences: DPO's β; larger values keep the model closer to its base
    dpo_beta: Annotated[float, Range(0, exclusive_minimum=True)] = 0.1

    def __post_init__(self) -> None:
        expand_path_fields(self, ("init_from", "eval_tasks"))
        check_field_ranges(self, "train")
        if not self.eval_tasks:
            names = ("eval_tasks_every", "eval_tasks_limit")
            reject_unused(self, "train", names, "train.eval_tasks is empty")
        if not self.profile_start:
            reject_unused(self, "train", ("profile_steps",), "train.profile_start is 0")
        if not self.eval_every:
            reject_unused(self, "train", ("early_stopping_patience",), "train.eval_every is 0")
        warmup = self.schedule.warmup_steps(self.steps)
        if warmup >= self.steps and warmup:
            raise ValueError(
                f"train.schedule.warmup takes {warmup:,} of {self.steps:,} steps (train.steps), so "
                f"the peak would never be reached; choose fewer, or a share such as 0.05."
            )
        if self.lora.rank and (self.optimizer.kind == "muon" or self.precision == "fp8"):
            raise ValueError(
                f"train.lora.rank {self.lora.rank} trains an adapter, which supports neither Muon "
                f'nor fp8; choose train.optimizer.kind = "adamw" and another train.precision.'
            )
        if self.hsdp_replicas > 1 and self.parallel == "ddp":
            raise ValueError(
                f'train.hsdp_replicas {self.hsdp_replicas} needs train.parallel = "fsdp"; it is '
                f'"ddp".'
            )
        if self.parallel == "ddp":
            reason = 'train.parallel is "ddp"'
            reject_unused(self, "train", ("reshard_after_forward",), reason)

    def accumulation_steps(self, sequence_length: int, world_size: int = 1) -> int:
        """Return the micro-batches of a rank per step; raise ValueError if they do not divide."""
        tokens = self.tokens_per_step
        micro_step = world_size * self.micro_batch_size * sequence_length
        count, remainder = divmod(tokens, micro_step)
        if not remainder:
            return count
        nearest = [n * micro_step for n in (count, count + 1) if n]
        raise ValueError(
            f"{tokens:,} tokens a step cannot be split over {plural(world_size, 'rank')} of "
            f"{self.micro_batch_size} × {sequence_length:,}: a micro-step of all ranks takes "
            f"{micro_step:,}, and {tokens:,} / {micro_step:,} = {tokens / micro_step:.2f}. Nearest "
            f"that work: {' or '.join(f'{n:,}' for n in nearest)} (train.tokens_per_step); "
            f"or take a smaller train.micro_batch_size."
        )
