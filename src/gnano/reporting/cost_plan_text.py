"""Formats a cost plan: recipe, memory, speed and price on the chosen GPUs, and a table of GPUs."""

from gnano.model.flops import flops_per_token, num_parameters, parameters_by_part
from gnano.reporting.cost_plan import CHINCHILLA_TOKENS_PER_PARAMETER, CostEstimate, CostPlan
from gnano.utils.formatting import format_clock, format_gb, format_table

LABEL_WIDTH = 13


def format_plan(plan: CostPlan) -> str:
    """Return the text that `gnano plan` prints."""
    sections = [_format_recipe(plan)]
    if plan.selected is not None:
        sections += [_format_memory(plan.selected), _format_cost(plan, plan.selected)]
        if not plan.selected.fits:
            sections.append(_format_warning(plan, plan.selected))
    return "\n\n".join([*sections, _format_table(plan)])


def _format_recipe(plan: CostPlan) -> str:
    model, train = plan.recipe.model, plan.recipe.train
    parts, count = parameters_by_part(model), num_parameters(model)
    balance = CHINCHILLA_TOKENS_PER_PARAMETER * count
    flops = f"{_format_number(flops_per_token(model))} per token"
    split = f"{plan.gpus} GPU{'s' * (plan.gpus > 1)} × {train.micro_batch_size}"
    split += f" × {model.block_size:,} × {plan.micro_steps} micro-batch"
    rows = [
        ("FLOPs", f"{flops}, {_format_number(plan.flops)} in total"),
        ("tokens", f"{_format_number(plan.tokens)}, {plan.tokens / count:.1f} per parameter"),
        (
            "",
            f"the Chinchilla optimum is about {CHINCHILLA_TOKENS_PER_PARAMETER}: "
            f"{_format_number(balance)}, {round(balance / train.tokens_per_step):,} steps",
        ),
        ("step", f"{train.tokens_per_step:,} tokens = {split}{'es' * (plan.micro_steps > 1)}"),
        ("precision", train.precision + ", activations twice" * train.activation_checkpointing),
    ]
    lines = [f"  {part:<{LABEL_WIDTH + 1}}{number:>12,}" for part, number in parts.items()]
    return "\n".join(
        [_format_row("parameters", f"{count:>15,}"), *lines, *(_format_row(*row) for row in rows)]
    )


def _format_memory(estimate: CostEstimate) -> str:
    memory, name = estimate.memory, estimate.gpu.name
    several = f"each of {estimate.gpus} × {name}, {estimate.parallel}"
    sizes = f"{_gb(memory.total_bytes)} of {_gb(estimate.gpu.memory_bytes)}"
    where = several if estimate.gpus > 1 else f"one {name}"
    rows = [_format_row("memory", f"{sizes} on {where}, reached {memory.peak_phase}")]
    rows += [f"  {part:<26}{_gb(size):>10}" for part, size in memory.parts.items() if size]
    return "\n".join(rows)


def _format_cost(plan: CostPlan, estimate: CostEstimate) -> str:
    precision = plan.recipe.train.precision
    if estimate.tokens_per_s is None or estimate.hours is None or estimate.mfu is None:
        advice = "; give a share of the bf16 peak as --mfu" if precision == "fp32" else ""
        return _format_row("speed", f"unknown in {precision} on {estimate.gpu.name}{advice}")
    source = "given by --mfu"
    if plan.assumed_mfu is None:
        source = "expected, not measured (see docs/planning.md)"
    speed = f"{estimate.tokens_per_s:,.0f} tokens/s, {estimate.mfu:.1%} MFU"
    rows = [_format_row("speed", f"{speed}: {source}")]
    if precision == "fp8" and estimate.gpu.fp8_tflops is not None:
        share = estimate.mfu * estimate.gpu.bf16_tflops / estimate.gpu.fp8_tflops
        rows.append(_format_row("", f"MFU is of the bf16 peak; of the FP8 peak it is {share:.1%}"))
    gpu_hours = f"{estimate.hours * estimate.gpus:,.1f} GPU-hours"
    rows.append(_format_row("time", f"{_format_hours(estimate.hours)}, {gpu_hours}"))
    if estimate.dollars is not None:
        price = f"${plan.gpu_hour_price:.2f} per GPU-hour"
        rows.append(_format_row("money", f"${estimate.dollars:,.2f} at {price}"))
    if estimate.kwh is not None:
        rows.append(_format_row("energy", f"{estimate.kwh:,.0f} kWh at most, for the GPUs only"))
    return "\n".join(rows)


def _format_warning(plan: CostPlan, estimate: CostEstimate) -> str:
    gpu = estimate.gpu
    if plan.recipe.train.precision == "fp8" and gpu.fp8_tflops is None:
        problem = f"{gpu.name} has no FP8"
    else:
        problem = (
            f"{_gb(estimate.memory.total_bytes)} will not fit {gpu.name}: it has "
            f"{_gb(gpu.memory_bytes)}, and a tenth of that should stay free"
        )
    remedy = "No known change makes it fit; take a larger GPU or a smaller model"
    if estimate.remedy is not None:
        assert estimate.remedy_bytes is not None
        remedy = f"It fits with {estimate.remedy}: {_gb(estimate.remedy_bytes)}"
    return f"WARNING: {problem}. {remedy}."


def _format_table(plan: CostPlan) -> str:
    has_price = plan.gpu_hour_price is not None
    headers = ["GPU", "has GB", "needs", "fits", "tokens/s", "MFU", "hours"] + ["$"] * has_price
    rows = [[*headers, ""]]
    for estimate in plan.estimates:
        parallel = f", {estimate.parallel}" if plan.gpus > 1 else ""
        row = [
            estimate.gpu.name,
            f"{estimate.gpu.memory_bytes / 1e9:.0f}",
            f"{estimate.memory.total_bytes / 1e9:.1f}",
            f"{'yes' if estimate.fits else 'no'}{parallel}",
            _format_known(estimate.tokens_per_s, ",.0f"),
            _format_known(estimate.mfu, ".0%"),
            _format_known(estimate.hours, ",.1f"),
            *([_format_known(estimate.dollars, ",.0f")] if has_price else []),
        ]
        remedy = estimate.remedy or "no known change helps"
        rows.append([*row, "" if estimate.fits else remedy])
    return "\n".join(format_table(rows, left=(0, 3)))


def _format_known(value: float | None, spec: str) -> str:
    return "?" if value is None else f"{value:{spec}}"


def _format_row(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _gb(size: float) -> str:
    return format_gb(size, ",.2f")


def _format_hours(hours: float) -> str:
    """Return minutes and seconds below an hour, hours and days above two days."""
    if hours < 1:
        return f"{format_clock(3600 * hours)} minutes"
    return f"{hours:,.1f} hours" + (f" ({hours / 24:,.1f} days)" if hours > 48 else "")


def _format_number(number: float) -> str:
    """Return a shortened number: 13_107_200_000 -> '13.1 billion'."""
    for power, word in ((18, "× 10¹⁸"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            form = ",.3g" if number < 10 ** (power + 3) else ",.0f"
            return f"{number / 10**power:{form}} {word}"
    return f"{number:,}"
