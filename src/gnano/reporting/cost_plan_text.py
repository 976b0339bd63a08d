"""Formats a plan: the recipe, its memory, speed and price on the chosen GPUs, and a table."""

from gnano.model.flops import flops_per_token, num_parameters, parameters_by_part
from gnano.reporting.cost_plan import CHINCHILLA_TOKENS_PER_PARAMETER, CostEstimate, CostPlan
from gnano.utils.progress import format_clock
from gnano.utils.formatting import align_columns

LABEL_WIDTH = 13  # of the words in front


def format_plan(plan: CostPlan) -> str:
    """What `gnano plan` prints."""
    sections = [_format_recipe(plan)]
    if plan.selected is not None:
        sections.append(_format_memory(plan.selected))
        sections.append(_format_cost(plan, plan.selected))
        if not plan.selected.fits:
            sections.append(_format_warning(plan, plan.selected))
    sections.append(_format_table(plan))
    return "\n\n".join(sections)


def _format_recipe(plan: CostPlan) -> str:
    model, settings = plan.recipe.model, plan.recipe.train
    parts, count = parameters_by_part(model), num_parameters(model)
    balance = CHINCHILLA_TOKENS_PER_PARAMETER * count
    steps = round(balance / settings.tokens_per_step)
    rows = [_format_row("parameters", f"{count:>15,}")]
    rows += [f"  {part:<{LABEL_WIDTH + 1}}{number:>12,}" for part, number in parts.items()]
    rows += [
        _format_row(
            "FLOPs",
            f"{_format_number(flops_per_token(model))} a token, {_format_number(plan.flops)} in all",
        ),
        _format_row(
            "tokens", f"{_format_number(plan.tokens)}, {plan.tokens / count:.1f} for each parameter"
        ),
        _format_row(
            "",
            f"Chinchilla's balance is about {CHINCHILLA_TOKENS_PER_PARAMETER}: {_format_number(balance)}, {steps:,} steps",
        ),
        _format_row(
            "step",
            f"{settings.tokens_per_step:,} tokens = {plan.gpus} GPU{'s' * (plan.gpus > 1)} × "
            f"{settings.micro_batch_size} × {model.block_size:,} × {plan.micro_steps} "
            f"micro-batch{'es' * (plan.micro_steps > 1)}",
        ),
        _format_row(
            "precision",
            settings.precision + ", activations twice" * settings.activation_checkpointing,
        ),
    ]
    return "\n".join(rows)


def _format_memory(estimate: CostEstimate) -> str:
    memory, several = estimate.memory, estimate.gpus > 1
    where = f"each of {estimate.gpus} × {estimate.gpu.name}, {estimate.parallel}"
    rows = [
        _format_row(
            "memory",
            f"{_format_gb(memory.total_bytes)} of {_format_gb(estimate.gpu.memory_bytes)} on "
            f"{where if several else 'one ' + estimate.gpu.name}, reached {memory.peak_phase}",
        )
    ]
    rows += [f"  {part:<26}{_format_gb(size):>10}" for part, size in memory.parts.items() if size]
    return "\n".join(rows)


def _format_cost(plan: CostPlan, estimate: CostEstimate) -> str:
    if estimate.tokens_per_s is None or estimate.hours is None or estimate.mfu is None:
        precision = plan.recipe.train.precision
        advice = "; give a share of the bf16 peak as --mfu" if precision == "fp32" else ""
        return _format_row("speed", f"unknown in {precision} on {estimate.gpu.name}{advice}")
    given = plan.assumed_mfu is not None
    source = "as --mfu says" if given else "expected, not measured (docs/planning.md says why)"
    rows = [
        _format_row(
            "speed", f"{estimate.tokens_per_s:,.0f} tokens/s, {estimate.mfu:.1%} MFU: {source}"
        ),
    ]
    if plan.recipe.train.precision == "fp8" and estimate.gpu.fp8_tflops is not None:
        share = estimate.mfu * estimate.gpu.bf16_tflops / estimate.gpu.fp8_tflops
        rows.append(_format_row("", f"MFU is of the bf16 peak; of the FP8 peak it is {share:.1%}"))
    hours = estimate.hours
    rows.append(
        _format_row("time", f"{_format_hours(hours)}, {hours * estimate.gpus:,.1f} GPU-hours")
    )
    if estimate.dollars is not None:
        rows.append(
            _format_row(
                "money", f"${estimate.dollars:,.2f} at ${plan.gpu_hour_price:.2f} a GPU-hour"
            )
        )
    if estimate.kwh is not None:
        rows.append(_format_row("energy", f"{estimate.kwh:,.0f} kWh at most, of the GPUs alone"))
    return "\n".join(rows)


def _format_warning(plan: CostPlan, estimate: CostEstimate) -> str:
    gpu, needed = estimate.gpu, estimate.memory.total_bytes
    if plan.recipe.train.precision == "fp8" and gpu.fp8_tflops is None:
        trouble = f"{gpu.name} has no FP8"
    else:
        trouble = (
            f"{_format_gb(needed)} will not fit {gpu.name}: it has {_format_gb(gpu.memory_bytes)}, and a tenth of "
            f"that should stay free"
        )
    if estimate.remedy is None:
        return (
            f"WARNING: {trouble}. Nothing here makes it fit; take a larger GPU or a smaller model."
        )
    assert estimate.remedy_bytes is not None
    return (
        f"WARNING: {trouble}. It fits with {estimate.remedy}: {_format_gb(estimate.remedy_bytes)}."
    )


def _format_table(plan: CostPlan) -> str:
    priced = plan.gpu_hour_price is not None
    heads = ["GPU", "has GB", "needs", "fits", "tokens/s", "MFU", "hours"] + ["$"] * priced
    rows = [[*heads, ""]]
    for outlook in plan.estimates:
        speed, mfu, hours = outlook.tokens_per_s, outlook.mfu, outlook.hours
        row = [
            outlook.gpu.name,
            f"{outlook.gpu.memory_bytes / 1e9:.0f}",
            f"{outlook.memory.total_bytes / 1e9:.1f}",
            f"{'yes' if outlook.fits else 'no'}{', ' + outlook.parallel if plan.gpus > 1 else ''}",
            "?" if speed is None else f"{speed:,.0f}",
            "?" if mfu is None else f"{mfu:.0%}",
            "?" if hours is None else f"{hours:,.1f}",
        ]
        if priced:
            row.append("?" if outlook.dollars is None else f"{outlook.dollars:,.0f}")
        remedy = outlook.remedy or "nothing here helps"
        rows.append([*row, "" if outlook.fits else remedy])
    return "\n".join(align_columns(rows, right={1, 2, *range(4, len(heads))}))


def _format_row(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _format_gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _format_hours(hours: float) -> str:
    """Minutes and seconds below an hour, days beside the hours above two days."""
    if hours < 1:
        return f"{format_clock(3600 * hours)} minutes"
    return f"{hours:,.1f} hours" + (f" ({hours / 24:,.1f} days)" if hours > 48 else "")


def _format_number(number: float) -> str:
    """13_107_200_000 -> '13.1 billion'."""
    for power, word in ((18, "× 10¹⁸"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            form = ",.3g" if number < 10 ** (power + 3) else ",.0f"
            return f"{number / 10**power:{form}} {word}"
    return f"{number:,}"
