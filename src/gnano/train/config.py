"""How is the model trained? The settings of the one loop."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.model import LoraConfig
from gnano.train.guard import GuardConfig
from gnano.train.optimizers.optimizer import OptimizerConfig
from gnano.train.optimizers.schedule import Schedule
from gnano.utils.openmp import THREADS
from gnano.utils.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int = 1_000  # optimizer steps in all
    tokens_per_step: int = 16_384  # over all micro-batches and ranks
    micro_batch: int = 16  # sequences a rank computes at once
    clip: float = 1.0  # largest gradient norm; beyond it the gradient is scaled down
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    # of the matrix products, over fp32 master weights; auto: fp32 or bf16, measured
    device: str = "auto"  # cpu, cuda, cuda:1, mps …; auto: a GPU with CUDA if there is one
    threads: Annotated[int, THREADS] = 0  # of a CPU that a rank computes with; 0: one per core
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    # with several ranks: ddp copies the model, fsdp shards it; auto: ddp where that fits
    replicas: int = 1  # fsdp: groups of ranks that hold a whole model each (HSDP)
    compile: Literal["auto", "yes", "no"] = "auto"  # torch.compile the blocks; auto: if it pays
    recompute: bool = False  # compute activations twice instead of keeping them: less memory
    seed: int = 0  # of the initial weights and of dropout
    base: str = ""  # begin with these weights: a run, a checkpoint, a Hugging Face folder
    eval_every: int = 100  # steps between held-out losses; 0: only at the end
    eval_tokens: int = 32_768  # of the held-out set each time; at the end it is all of it
    tasks: tuple[str, ...] = ()  # asked on the way, as by gnano eval: names, or files of items
    tasks_every: int = 0  # steps between askings; 0: only at the end
    tasks_limit: int = 500  # items of each task, spread over all it has; 0: all
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # newest checkpoints kept
    keep_every: int = 0  # steps: checkpoints after a multiple of it are kept for good; 0: none
    keep_best: bool = True  # so is the one with the lowest held-out loss of those measured
    patience: int = 0  # held-out losses in a row without a new best that end the run; 0: none do
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # that see the metrics as well
    profile_at: int = 0  # first step of a torch profiler's window; 0: none
    profile_steps: int = 3  # steps in that window
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=Schedule)
    guard: GuardConfig = field(default_factory=GuardConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    beta: float = 0.1  # preferences: how dear it is to part from the base (DPO's β)

    def __post_init__(self) -> None:
        check_ranges(self, "train")
        counts = ("steps", "tokens_per_step", "micro_batch", "save_every", "keep")
        for name in (*counts, "replicas", "profile_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("tasks_every", "tasks_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; use 0 or more.")
        if self.patience < 0:
            raise ValueError(f"train.patience is {self.patience}; use 0 or more.")
        if not self.beta > 0:
            raise ValueError(f"train.beta is {self.beta}; it must be more than 0.")
        if not self.clip > 0:
            raise ValueError(f"train.clip is {self.clip}; it must be more than 0.")
        if self.lora.rank and (self.optimizer.kind == "muon" or self.precision == "fp8"):
            raise ValueError(
                f"train.lora.rank {self.lora.rank} learns an adapter, for which there is no Muon "
                f'and no fp8; choose train.optimizer.kind = "adamw" and another train.precision.'
            )
        if self.replicas > 1 and self.parallel == "ddp":
            raise ValueError(
                f"train.replicas {self.replicas} groups a sharded model; it needs "
                f'train.parallel = "fsdp", and this is "ddp".'
            )

    def accumulation(self, length: int, ranks: int = 1) -> int:
        """Micro-batches a rank computes for one step of `tokens_per_step`."""
        at_once = ranks * self.micro_batch * length
        whole, rest = divmod(self.tokens_per_step, at_once)
        if not rest:
            return whole
        near = [n * at_once for n in (whole, whole + 1) if n]
        raise ValueError(
            f"{self.tokens_per_step:,} tokens a step cannot be split over {ranks} "
            f"rank{'s' * (ranks > 1)} of {self.micro_batch} × {length:,}: a micro-step of all "
            f"takes {at_once:,}, and {self.tokens_per_step:,} / {at_once:,} = "
            f"{self.tokens_per_step / at_once:.2f}. Nearest that work: "
            f"{' or '.join(f'{n:,}' for n in near)} (train.tokens_per_step)."
        )
