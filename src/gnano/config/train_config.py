"""Settings of the optimizer and of the learning rate: a linear warm-up, then one of three decays.

cosine  /‾‾╲__      half a cosine (Loshchilov & Hutter 2017)
wsd     /‾‾‾‾‾╲     at the peak, then straight down at the end (MiniCPM, arXiv 2404.06395)
linear  /╲___       straight down from the peak (arXiv 2310.07831)

How is the model trained? The settings of the one loop.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.config.model_config import LoraConfig
from gnano.utils.platform_support import THREAD_RANGE
from gnano.utils.text import expand_path_fields
from gnano.utils.validation import Range, check_field_ranges, reject_unused

BELOW_ONE = Range(0, 1, exclusive_maximum=True)


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    kind: Literal["cosine", "wsd", "linear"] = "cosine"  # the way from the peak to the floor
    # learning rate at the end of warm-up
    peak: Annotated[float, Range(0, exclusive_minimum=True)] = 3e-4
    warmup: Annotated[float, Range(0)] = 0.05  # steps of rise from 0; below 1: share of all steps
    floor: Annotated[float, Range(0, 1)] = 0.1  # share of the peak that it ends on
    # wsd: share of all steps that it falls over, at the end
    decay: Annotated[float, Range(0, 1)] = 0.3

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.schedule")
        if self.kind != "wsd":
            why = f"train.schedule.kind is {self.kind!r}"
            reject_unused(self, "train.schedule.", ("decay",), why)
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(
                f"train.schedule.warmup is {self.warmup}; it must be a whole number of steps, or "
                f"less than 1, a share of all steps."
            )

    def warmup_steps(self, total_steps: int) -> int:
        """Return how many of all steps are warm-up."""
        return round(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)

    def lr_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a step from 0 to steps - 1."""
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
    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the layers
    beta1: Annotated[float, BELOW_ONE] = 0.9  # AdamW: memory of the gradient's mean
    beta2: Annotated[float, BELOW_ONE] = 0.95  # AdamW: memory of its square
    eps: Annotated[float, Range(0, 1, exclusive_minimum=True)] = (
        1e-8  # AdamW: added to the root of the square
    )
    # shrink of the matrices a step, times the learning rate
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.1
    # learning rate of the embedding, in multiples of the schedule's
    embedding_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = 1.0
    head_lr_scale: Annotated[float, Range(0, 1_000, exclusive_minimum=True)] = (
        1.0  # the same for the head
    )
    momentum: Annotated[float, BELOW_ONE] = 0.95  # Muon: memory of the gradient's mean
    # Muon: iterations towards the nearest orthogonal matrix
    ns_steps: Annotated[int, Range(1, 8)] = 5

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.optimizer")
        if self.kind != "muon":
            names, why = ("momentum", "ns_steps"), f"train.optimizer.kind is {self.kind!r}"
            reject_unused(self, "train.optimizer.", names, why)


MAX_STEPS = 99_999_999  # eight digits, as in a checkpoint's name


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    # skipped steps in a row before the run goes back and around their data
    rollback_after: Annotated[int, Range(1)] = 10
    max_rollbacks: Annotated[int, Range(0)] = 3  # times it may do so before it gives up
    # robust z-score of loss or gradient norm that skips a step; 0: none does
    spike_threshold: Annotated[float, Range(0)] = 0.0
    spike_window: Annotated[int, Range(1, 2**24)] = 128  # steps that a spike is measured against
    # seconds in one phase after which a run counts as stuck; 0: never
    stall_timeout: Annotated[float, Range(0)] = 1_800.0

    def __post_init__(self) -> None:
        check_field_ranges(self, "train.stability")
        if not self.spike_threshold:
            reject_unused(
                self, "train.stability.", ("spike_window",), "train.stability.spike_threshold is 0"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: Annotated[int, Range(1, MAX_STEPS)] = 1_000  # optimizer steps in all
    tokens_per_step: Annotated[int, Range(1, 2**40)] = 16_384  # over all micro-batches and ranks
    micro_batch_size: Annotated[int, Range(1, 2**24)] = 16  # sequences a rank computes at once
    # largest gradient norm; beyond it the gradient is scaled down
    grad_clip: Annotated[float, Range(0, exclusive_minimum=True)] = 1.0
    # of the matrix products, over fp32 master weights; auto: fp32 or bf16, measured
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    device: str = "auto"  # cpu, cuda, cuda:1, mps …; auto: a GPU with CUDA if there is one
    threads: Annotated[int, THREAD_RANGE] = 0  # of a CPU that a rank computes with; 0: one per core
    # with several ranks: ddp copies the model, fsdp shards it; auto: ddp where that fits
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    # fsdp: groups of ranks that hold a whole model each (HSDP)
    hsdp_replicas: Annotated[int, Range(1, 2**24)] = 1
    compile: Literal["auto", "yes", "no"] = "auto"  # torch.compile the blocks; auto: if it pays
    # compute activations twice instead of keeping them: less memory
    activation_checkpointing: bool = False
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # of the initial weights and of dropout
    init_from: str = ""  # begin with these weights: a run, a checkpoint, a Hugging Face folder
    eval_every: Annotated[int, Range(0)] = 100  # steps between held-out losses; 0: only at the end
    # of the held-out set each time; at the end it is all of it
    eval_tokens: Annotated[int, Range(1)] = 32_768
    eval_tasks: tuple[str, ...] = ()  # asked on the way, as by gnano eval: names, or files of items
    eval_tasks_every: Annotated[int, Range(0)] = 0  # steps between askings; 0: only at the end
    # items of each task, spread over all it has; 0: all
    eval_tasks_limit: Annotated[int, Range(0)] = 500
    save_every: Annotated[int, Range(1)] = 500  # steps between checkpoints
    keep_last: Annotated[int, Range(1)] = 2  # newest checkpoints kept
    # steps: checkpoints after a multiple of it are kept for good; 0: none
    keep_every: Annotated[int, Range(0)] = 0
    keep_best: bool = True  # so is the one with the lowest held-out loss of those measured
    # held-out losses in a row without a new best that end the run; 0: none do
    early_stopping_patience: Annotated[int, Range(0)] = 0
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # that see the metrics as well
    profile_start: Annotated[int, Range(0)] = 0  # first step of a torch profiler's window; 0: none
    profile_steps: Annotated[int, Range(1)] = 3  # steps in that window
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: LRSchedule = field(default_factory=LRSchedule)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    # preferences: how dear it is to part from the base (DPO's β)
    dpo_beta: Annotated[float, Range(0, exclusive_minimum=True)] = 0.1

    def __post_init__(self) -> None:
        expand_path_fields(self, ("init_from", "eval_tasks"))
        check_field_ranges(self, "train")
        if not self.eval_tasks:
            reject_unused(
                self, "train.", ("tasks_every", "tasks_limit"), "train.eval_tasks is empty"
            )
        if not self.profile_start:
            reject_unused(self, "train.", ("profile_steps",), "train.profile_start is 0")
        if not self.eval_every:
            reject_unused(self, "train.", ("patience",), "train.eval_every is 0")
        rise = self.schedule.warmup_steps(self.steps)
        if rise >= self.steps and rise:
            raise ValueError(
                f"train.schedule.warmup takes {rise:,} steps, and all of them are {self.steps:,} "
                f"(train.steps), so the peak would never be reached; choose fewer, or a share of "
                f"the steps such as 0.05."
            )
        if self.lora.rank and (self.optimizer.kind == "muon" or self.precision == "fp8"):
            raise ValueError(
                f"train.lora.rank {self.lora.rank} learns an adapter, for which there is no Muon "
                f'and no fp8; choose train.optimizer.kind = "adamw" and another train.precision.'
            )
        if self.hsdp_replicas > 1 and self.parallel == "ddp":
            raise ValueError(
                f"train.hsdp_replicas {self.hsdp_replicas} groups a sharded model; it needs "
                f'train.parallel = "fsdp", and this is "ddp".'
            )

    def accumulation_steps(self, sequence_length: int, world_size: int = 1) -> int:
        """Micro-batches a rank computes for one step of `tokens_per_step`."""
        at_once = world_size * self.micro_batch_size * sequence_length
        whole, rest = divmod(self.tokens_per_step, at_once)
        if not rest:
            return whole
        near = [n * at_once for n in (whole, whole + 1) if n]
        raise ValueError(
            f"{self.tokens_per_step:,} tokens a step cannot be split over {world_size} "
            f"rank{'s' * (world_size > 1)} of {self.micro_batch_size} × {sequence_length:,}: a micro-step of all "
            f"takes {at_once:,}, and {self.tokens_per_step:,} / {at_once:,} = "
            f"{self.tokens_per_step / at_once:.2f}. Nearest that work: "
            f"{' or '.join(f'{n:,}' for n in near)} (train.tokens_per_step)."
        )
