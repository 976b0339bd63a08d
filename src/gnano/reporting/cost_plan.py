"""Predicts what a run costs and whether it fits, on GPUs that need not be present.

    recipe ─┬─ parameters, FLOPs, tokens ─────────────────▶ exact
            ├─ memory of a rank (train/estimate.py) ──────▶ predicted; fits? which change helps?
            └─ tokens/s (train/estimate.py, or an MFU) ───▶ expected ─▶ hours, money, energy

GB are 10⁹ bytes, as in the progress line of a run.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.model.flops import (
    GPUS,
    Gpu,
    flops_per_token,
    get_gpu,
    num_parameters,
    parameters_by_part,
)
from gnano.train.estimate import (
    MemoryEstimate,
    choose_parallelism,
    estimate_memory,
    estimate_tokens_per_s,
    fits_in_memory,
)
from gnano.utils.formatting import format_clock, format_gb, format_table
from gnano.utils.templates import render_template
from gnano.utils.validation import Range, check_number

# tokens per parameter (Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556)
CHINCHILLA_TOKENS_PER_PARAMETER = 20
# the best published MFU of complete runs: nanochat on 8 H100 in bf16; torchtitan with FP8 (a model
# of 8 billion parameters, by the bf16 peak)
BEST_PUBLISHED_MFU = {"bf16": 0.50, "fp8": 0.64}
MIN_BATCH_GAIN = 0.01  # of the speed, for which a larger micro-batch is proposed
MAX_SUGGESTED_GPUS = 64  # suggestions go up to this number, in multiples of the planned one


@dataclass(frozen=True)
class CostEstimate:
    """Memory, speed and cost of a recipe on GPUs of one kind."""

    gpu: Gpu
    gpus: int
    parallel: Literal["ddp", "fsdp"]
    memory: MemoryEstimate  # of each GPU
    fits: bool
    remedy: str | None  # flags that make it fit, if it does not; None: no known change does
    remedy_bytes: int | None  # memory of each GPU with these flags
    faster: str | None  # flags of a larger micro-batch that fits, and what it gains
    tokens_per_s: float | None  # of all GPUs; None: not known for fp32, or no FP8 on this GPU
    mfu: float | None  # of the dense bf16 peak
    hours: float | None
    dollars: float | None  # None: no price was given
    kwh: float | None  # at full board power


@dataclass(frozen=True)
class CostPlan:
    """Cost estimates of a recipe on the chosen GPUs and on all known ones."""

    recipe: Recipe  # with `auto` resolved as on a GPU
    gpus: int
    micro_steps: int  # micro-batches per rank and step
    gpu_hour_price: float | None  # dollars
    assumed_mfu: float | None  # given by the user
    selected: CostEstimate | None
    estimates: tuple[CostEstimate, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the complete run."""
        return self.recipe.train.steps * self.recipe.train.tokens_per_step

    @property
    def flops(self) -> int:
        """FLOPs of the complete run."""
        return self.tokens * flops_per_token(self.recipe.model)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for `--json`."""
        model, count = self.recipe.model, num_parameters(self.recipe.model)

        def figures(estimate: CostEstimate) -> dict[str, Any]:
            gpu, memory = asdict(estimate.gpu), estimate.memory
            del gpu["name_pattern"]
            memory_bytes = {
                "moment": memory.peak_phase,
                "parts": memory.parts,
                "needed": memory.total_bytes,
                "device": estimate.gpu.memory_bytes,
            }
            rest = {key: x for key, x in vars(estimate).items() if key not in ("gpu", "memory")}
            return {"gpu": gpu, **rest, "memory_bytes": memory_bytes}

        return {
            "parameters": {**parameters_by_part(model), "all": count},
            "flops_per_token": flops_per_token(model),
            "flops": self.flops,
            "tokens": self.tokens,
            "tokens_per_parameter": self.tokens / count,
            "chinchilla_tokens": CHINCHILLA_TOKENS_PER_PARAMETER * count,
            "gpus": self.gpus,
            "micro_batch": self.recipe.train.micro_batch_size,
            "micro_steps": self.micro_steps,
            "precision": self.recipe.train.precision,
            "price": self.gpu_hour_price,
            "chosen": self.selected and figures(self.selected),
            "table": [figures(estimate) for estimate in self.estimates],
        }


def plan_cost(
    recipe: Recipe,
    gpu_name: str | None = None,
    gpus: int = 1,
    gpu_hour_price: float | None = None,
    mfu: float | None = None,
) -> CostPlan:
    """Estimate a recipe on `gpus` GPUs of the named kind, and of every known kind.

    `gpu_hour_price` is in dollars; `mfu`, a share, replaces the expected speed. Raises ValueError
    for an unknown GPU, a step that cannot be split over the GPUs, and numbers out of range.
    """
    check_number("gpus", gpus, Range(1, 1_000_000))
    check_number("price", gpu_hour_price, Range(0, 1_000_000), is_integer=False)
    check_number("mfu", mfu, Range(0, 1, exclusive_minimum=True), is_integer=False)
    named = None if gpu_name is None else get_gpu(gpu_name)
    if recipe.train.precision == "auto":
        recipe = replace(recipe, train=replace(recipe.train, precision="bf16"))
    micro_steps = recipe.train.accumulation_steps(recipe.model.block_size, gpus)
    if gpus % (groups := recipe.train.hsdp_replicas):
        raise ValueError(
            f"{gpus} GPUs cannot form {groups} groups of the same size (train.hsdp_replicas)."
        )
    table = tuple(_estimate(recipe, gpu, gpus, gpu_hour_price, mfu) for gpu in GPUS)
    selected = None if named is None else _estimate(recipe, named, gpus, gpu_hour_price, mfu)
    return CostPlan(recipe, gpus, micro_steps, gpu_hour_price, mfu, selected, table)


def _estimate(
    recipe: Recipe, gpu: Gpu, gpus: int, gpu_hour_price: float | None, mfu: float | None
) -> CostEstimate:
    model = recipe.model
    train = choose_parallelism(model, recipe.train, gpus, gpu.memory_bytes)
    memory = estimate_memory(model, train, gpus)
    is_supported = train.precision != "fp8" or gpu.fp8_tflops is not None
    fits = is_supported and fits_in_memory(memory, gpu.memory_bytes)
    remedy, remedy_bytes = None, None
    if not fits:
        for flags, changed, count in _memory_reductions(train, gpus, gpu):
            try:
                then = estimate_memory(model, changed, count)
            except ValueError:
                continue  # the step cannot be split this way
            if fits_in_memory(then, gpu.memory_bytes):
                remedy, remedy_bytes = flags, then.total_bytes
                break

    flops, peak = flops_per_token(model), gpus * gpu.bf16_tflops * 1e12
    speed = None
    if is_supported and mfu is not None:
        speed = mfu * gpus * gpu.bf16_tflops * 1e12 / flops
    elif is_supported and train.precision != "fp32":
        # fp32: a third to a thirtieth of bf16, depending on the GPU and its TF32 setting
        speed = estimate_tokens_per_s(model, train, gpu, gpus)
    hours = speed and train.steps * train.tokens_per_step / speed / 3600
    return CostEstimate(
        gpu=gpu,
        gpus=gpus,
        parallel="fsdp" if train.parallel == "fsdp" else "ddp",
        memory=memory,
        fits=fits,
        remedy=remedy,
        remedy_bytes=remedy_bytes,
        faster=_larger_micro_batch(model, train, gpu, gpus) if fits else None,
        tokens_per_s=speed,
        mfu=speed and speed * flops / peak,
        hours=hours,
        dollars=None if gpu_hour_price is None or hours is None else gpu_hour_price * gpus * hours,
        kwh=hours and hours * gpus * gpu.max_watts / 1000,
    )


def _larger_micro_batch(model: ModelConfig, train: TrainConfig, gpu: Gpu, gpus: int) -> str | None:
    """Return flags of the largest micro-batch that fits, and its gain; None if it gains little."""
    larger = train
    with suppress(ValueError):  # the step cannot be split this way
        while True:
            next_size = replace(larger, micro_batch_size=2 * larger.micro_batch_size)
            if not fits_in_memory(estimate_memory(model, next_size, gpus), gpu.memory_bytes):
                break
            larger = next_size
    speeds = [estimate_tokens_per_s(model, one, gpu, gpus) for one in (train, larger)]
    gain = speeds[1] / speeds[0] - 1
    if gain < MIN_BATCH_GAIN:
        return None
    return f"--train.micro-batch-size {larger.micro_batch_size} fits and is {gain:.0%} faster"


def _memory_reductions(
    train: TrainConfig, gpus: int, gpu: Gpu
) -> Iterator[tuple[str, TrainConfig, int]]:
    """Yield changes that need less memory, those that cost least speed first."""
    if train.precision == "fp8" and gpu.fp8_tflops is None:
        bf16 = replace(train, precision="bf16")
        yield "--train.precision bf16", bf16, gpus
        for flags, smaller, count in _memory_reductions(bf16, gpus, gpu):
            yield f"--train.precision bf16 {flags}", smaller, count
        return
    most = max(MAX_SUGGESTED_GPUS, gpus)
    batch, checkpointing = train.micro_batch_size, train.activation_checkpointing
    counts = [gpus << doublings for doublings in range(10) if gpus << doublings <= most]
    modes: list[Literal["ddp", "fsdp"]] = ["ddp", "fsdp"] if train.parallel == "ddp" else ["fsdp"]
    halved = [batch >> halving for halving in range(batch.bit_length())]  # 8, 4, 2, 1
    combinations = product(counts, modes, sorted({checkpointing, True}), halved)
    for count, parallel, recompute, micro_batch in combinations:
        if parallel == "fsdp" and count % max(train.hsdp_replicas, 2):
            continue
        changed = replace(
            train,
            parallel=parallel,
            activation_checkpointing=recompute,
            micro_batch_size=micro_batch,
        )
        changes = [
            f"--gpus {count}" * (count != gpus),
            f"--train.parallel {parallel}" * (parallel != train.parallel),
            "--train.activation-checkpointing" * (recompute != checkpointing),
            f"--train.micro-batch-size {micro_batch}" * (micro_batch != batch),
        ]
        yield " ".join(filter(None, changes)), changed, count


def format_plan(plan: CostPlan) -> str:
    """Return the text that `gnano plan` prints."""
    has_price = plan.gpu_hour_price is not None
    headers = ["GPU", "has GB", "needs", "fits", "tokens/s", "MFU", "hours"] + ["$"] * has_price
    rows = [[*headers, ""]]
    for estimate in plan.estimates:
        figures = [(estimate.tokens_per_s, ",.0f"), (estimate.mfu, ".0%"), (estimate.hours, ",.1f")]
        figures += [(estimate.dollars, ",.0f")] * has_price
        rows.append(
            [
                estimate.gpu.name,
                f"{estimate.gpu.memory_bytes / 1e9:.0f}",
                f"{estimate.memory.total_bytes / 1e9:.1f}",
                ("yes" if estimate.fits else "no") + f", {estimate.parallel}" * (plan.gpus > 1),
                *("?" if value is None else f"{value:{spec}}" for value, spec in figures),
                "" if estimate.fits else estimate.remedy or "no known change helps",
            ]
        )
    return render_template(
        Path(__file__).with_name("plan.txt.j2"),
        {"words": _format_number, "gb": partial(format_gb, spec=",.2f"), "clock": format_clock},
        plan=plan,
        best_mfu=BEST_PUBLISHED_MFU.get(plan.recipe.train.precision),
        parameters=num_parameters(plan.recipe.model),
        parameters_by_part=parameters_by_part(plan.recipe.model),
        flops_per_token=flops_per_token(plan.recipe.model),
        tokens_per_parameter=CHINCHILLA_TOKENS_PER_PARAMETER,
        table="\n".join(format_table(rows, left=(0, 3, len(headers)))),
    )


def _format_number(number: float) -> str:
    """Return a shortened number: 13_107_200_000 -> '13.1 billion'."""
    for power, word in ((18, "× 10¹⁸"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            form = ",.3g" if number < 10 ** (power + 3) else ",.0f"
            return f"{number / 10**power:{form}} {word}"
    return f"{number:,}"
