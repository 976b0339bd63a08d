"""Predicts what a run costs and whether it fits, on GPUs that need not be there.

    recipe ─┬─ parameters, FLOPs, tokens ─────────────────▶ exact
            ├─ memory of a rank (train/memory.py) ────────▶ predicted; fits? what would help?
            └─ tokens/s (train/speed.py, or a given MFU) ─▶ expected ─▶ hours, money, energy

GB are 10⁹ bytes, as in the line of a run. `planning_text` has the words.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gnano.model.arithmetic import flops_per_token, num_parameters, parameters
from gnano.model.hardware import GPUS, Gpu, find_gpu
from gnano.train.config import TrainConfig
from gnano.train.memory import Memory, choose_parallel, fits, predict
from gnano.train.recipe import Recipe
from gnano.train.speed import expected_tokens_per_s
from gnano.utils.ranges import Range, check_number

CHINCHILLA = 20  # tokens a parameter (Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556)
MOST_GPUS = 64  # that advice goes up to, in multiples of those asked for


@dataclass(frozen=True)
class Outlook:
    """A recipe on some GPUs of one kind."""

    gpu: Gpu
    gpus: int
    parallel: Literal["ddp", "fsdp"]
    memory: Memory  # of each GPU
    fits: bool
    remedy: str | None  # flags that make it fit, where it does not; None: none of ours do
    remedy_bytes: int | None  # needed with them, of each GPU
    tokens_per_s: float | None  # of all GPUs; None: not known for fp32, and no FP8 where none is
    mfu: float | None  # of the dense bf16 peak
    hours: float | None
    dollars: float | None  # None: no price was given
    kwh: float | None  # at full board power


@dataclass(frozen=True)
class Plan:
    recipe: Recipe  # `auto` replaced by what it is on a GPU
    gpus: int
    micro_steps: int  # micro-batches a rank computes for one step
    price: float | None  # dollars a GPU-hour
    assumed_mfu: float | None  # given by the user
    chosen: Outlook | None
    table: tuple[Outlook, ...]

    @property
    def tokens(self) -> int:
        return self.recipe.train.steps * self.recipe.train.tokens_per_step

    @property
    def flops(self) -> int:
        return self.tokens * flops_per_token(self.recipe.model)

    def as_dict(self) -> dict[str, Any]:
        """All figures, for `--json`."""
        model, count = self.recipe.model, num_parameters(self.recipe.model)
        return {
            "parameters": {**parameters(model), "all": count},
            "flops_per_token": flops_per_token(model),
            "flops": self.flops,
            "tokens": self.tokens,
            "tokens_per_parameter": self.tokens / count,
            "chinchilla_tokens": CHINCHILLA * count,
            "gpus": self.gpus,
            "micro_batch": self.recipe.train.micro_batch,
            "micro_steps": self.micro_steps,
            "precision": self.recipe.train.precision,
            "price": self.price,
            "chosen": self.chosen and _as_dict(self.chosen),
            "table": [_as_dict(outlook) for outlook in self.table],
        }


def plan(
    recipe: Recipe,
    gpu: str | None = None,
    gpus: int = 1,
    price: float | None = None,
    mfu: float | None = None,
) -> Plan:
    """The outlook of a recipe on `gpus` GPUs of the kind named, and on every kind that is known.

    `price` is in dollars a GPU-hour; `mfu`, a share, replaces the expected speed. Raises
    ValueError for a GPU that is not known, a step that does not split over the GPUs, and
    numbers out of range.
    """
    check_number("gpus", gpus, Range(1, 1_000_000))
    check_number("price", price, Range(0, 1_000_000), whole=False)  # dollars a GPU-hour
    check_number("mfu", mfu, Range(0, 1, above=True), whole=False)  # share of the peak
    named = None if gpu is None else find_gpu(gpu)
    if recipe.train.precision == "auto":
        recipe = replace(recipe, train=replace(recipe.train, precision="bf16"))
    micro_steps = recipe.train.accumulation(recipe.model.block_size, gpus)
    if gpus % (groups := recipe.train.replicas):
        raise ValueError(
            f"{gpus} GPUs cannot form {groups} groups of the same size (train.replicas)."
        )
    table = tuple(_outlook(recipe, kind, gpus, price, mfu) for kind in GPUS)
    chosen = None if named is None else _outlook(recipe, named, gpus, price, mfu)
    return Plan(recipe, gpus, micro_steps, price, mfu, chosen, table)


def _outlook(
    recipe: Recipe, gpu: Gpu, gpus: int, price: float | None, mfu: float | None
) -> Outlook:
    settings = recipe.train
    parallel = choose_parallel(recipe.model, settings, gpus, gpu.bytes)
    memory = predict(recipe.model, settings, gpus, parallel)
    able = settings.precision != "fp8" or gpu.fp8 is not None
    good = able and fits(memory, gpu.bytes)
    remedy = None if good else _remedy(recipe, gpu, gpus, parallel)
    speed = _speed(recipe, gpu, gpus, mfu) if able else None
    peak = gpus * gpu.bf16 * 1e12
    hours = speed and settings.steps * settings.tokens_per_step / speed / 3600
    return Outlook(
        gpu=gpu,
        gpus=gpus,
        parallel=parallel,
        memory=memory,
        fits=good,
        remedy=remedy and remedy[0],
        remedy_bytes=remedy and remedy[1],
        tokens_per_s=speed,
        mfu=speed and speed * flops_per_token(recipe.model) / peak,
        hours=hours,
        dollars=None if price is None or hours is None else price * gpus * hours,
        kwh=hours and hours * gpus * gpu.watts / 1000,
    )


def _speed(recipe: Recipe, gpu: Gpu, gpus: int, mfu: float | None) -> float | None:
    if mfu is not None:
        return mfu * gpus * gpu.bf16 * 1e12 / flops_per_token(recipe.model)
    if recipe.train.precision == "fp32":
        return None  # a third to a thirtieth of bf16, as the GPU and its TF32 setting will have it
    return expected_tokens_per_s(recipe.model, recipe.train, gpu, gpus)


def _remedy(
    recipe: Recipe, gpu: Gpu, gpus: int, parallel: Literal["ddp", "fsdp"]
) -> tuple[str, int] | None:
    """The first of the changes below that makes it fit, as flags, and the bytes it then needs."""
    before = replace(recipe.train, parallel=parallel)
    for flags, settings, count in _changes(before, gpus, gpu):
        try:
            memory = predict(recipe.model, settings, count)
        except ValueError:
            continue  # the step does not split so
        if fits(memory, gpu.bytes):
            return flags, memory.total
    return None


def _changes(before: TrainConfig, gpus: int, gpu: Gpu) -> Iterator[tuple[str, TrainConfig, int]]:
    """Ways to need less memory, those that cost least speed first."""
    if before.precision == "fp8" and gpu.fp8 is None:
        settings = replace(before, precision="bf16")
        yield "--train.precision bf16", settings, gpus
        for flags, smaller, count in _changes(settings, gpus, gpu):
            yield f"--train.precision bf16 {flags}", smaller, count
        return
    most = max(MOST_GPUS, gpus)
    counts = [gpus << doublings for doublings in range(10) if gpus << doublings <= most]
    halvings = range(before.micro_batch.bit_length())
    halved = [before.micro_batch >> halving for halving in halvings]  # 8, 4, 2, 1
    for count in counts:
        for parallel in ("ddp", "fsdp") if before.parallel == "ddp" else ("fsdp",):
            if parallel == "fsdp" and count % max(before.replicas, 2):
                continue
            for recompute in (False, True) if not before.recompute else (True,):
                for micro_batch in halved:
                    settings = replace(
                        before, parallel=parallel, recompute=recompute, micro_batch=micro_batch
                    )
                    words = [
                        f"--gpus {count}" * (count != gpus),
                        f"--train.parallel {parallel}" * (parallel != before.parallel),
                        "--train.recompute" * (recompute != before.recompute),
                        f"--train.micro-batch {micro_batch}" * (micro_batch != before.micro_batch),
                    ]
                    yield " ".join(filter(None, words)), settings, count


def _as_dict(outlook: Outlook) -> dict[str, Any]:
    figures = {key: value for key, value in vars(outlook).items() if key not in ("gpu", "memory")}
    memory = {
        "moment": outlook.memory.moment,
        "parts": outlook.memory.parts,
        "needed": outlook.memory.total,
        "device": outlook.gpu.bytes,
    }
    gpu = {key: value for key, value in asdict(outlook.gpu).items() if key != "spelled"}
    return {"gpu": gpu, **figures, "memory_bytes": memory}
