"""Formats a plan: the recipe, its memory, speed and price on the chosen GPUs, and a table."""

from gnano.live import clock
from gnano.model.arithmetic import flops_per_token, num_parameters, parameters
from gnano.report.planning import CHINCHILLA, Outlook, Plan
from gnano.report.tables import align_columns

WIDTH = 13  # of the words in front


def plan_text(plan: Plan) -> str:
    """What `gnano plan` prints."""
    sections = [_recipe(plan)]
    if plan.chosen is not None:
        sections.append(_memory(plan.chosen))
        sections.append(_cost(plan, plan.chosen))
        if not plan.chosen.fits:
            sections.append(_warning(plan, plan.chosen))
    sections.append(_table(plan))
    return "\n\n".join(sections)


def _recipe(plan: Plan) -> str:
    model, settings = plan.recipe.model, plan.recipe.train
    parts, count = parameters(model), num_parameters(model)
    balance = CHINCHILLA * count
    steps = round(balance / settings.tokens_per_step)
    rows = [_row("parameters", f"{count:>15,}")]
    rows += [f"  {part:<{WIDTH + 1}}{number:>12,}" for part, number in parts.items()]
    rows += [
        _row("FLOPs", f"{_number(flops_per_token(model))} a token, {_number(plan.flops)} in all"),
        _row("tokens", f"{_number(plan.tokens)}, {plan.tokens / count:.1f} for each parameter"),
        _row(
            "", f"Chinchilla's balance is about {CHINCHILLA}: {_number(balance)}, {steps:,} steps"
        ),
        _row(
            "step",
            f"{settings.tokens_per_step:,} tokens = {plan.gpus} GPU{'s' * (plan.gpus > 1)} × "
            f"{settings.micro_batch} × {model.block_size:,} × {plan.micro_steps} "
            f"micro-batch{'es' * (plan.micro_steps > 1)}",
        ),
        _row("precision", settings.precision + ", activations twice" * settings.recompute),
    ]
    return "\n".join(rows)


def _memory(outlook: Outlook) -> str:
    memory, several = outlook.memory, outlook.gpus > 1
    where = f"each of {outlook.gpus} × {outlook.gpu.name}, {outlook.parallel}"
    rows = [
        _row(
            "memory",
            f"{_gb(memory.total)} of {_gb(outlook.gpu.bytes)} on "
            f"{where if several else 'one ' + outlook.gpu.name}, reached {memory.moment}",
        )
    ]
    rows += [f"  {part:<26}{_gb(size):>10}" for part, size in memory.parts.items() if size]
    return "\n".join(rows)


def _cost(plan: Plan, outlook: Outlook) -> str:
    if outlook.tokens_per_s is None or outlook.hours is None or outlook.mfu is None:
        precision = plan.recipe.train.precision
        advice = "; give a share of the bf16 peak as --mfu" if precision == "fp32" else ""
        return _row("speed", f"unknown in {precision} on {outlook.gpu.name}{advice}")
    given = plan.assumed_mfu is not None
    source = "as --mfu says" if given else "expected, not measured (docs/planning.md says why)"
    rows = [
        _row("speed", f"{outlook.tokens_per_s:,.0f} tokens/s, {outlook.mfu:.1%} MFU: {source}"),
    ]
    if plan.recipe.train.precision == "fp8" and outlook.gpu.fp8 is not None:
        share = outlook.mfu * outlook.gpu.bf16 / outlook.gpu.fp8
        rows.append(_row("", f"MFU is of the bf16 peak; of the FP8 peak it is {share:.1%}"))
    hours = outlook.hours
    rows.append(_row("time", f"{_hours(hours)}, {hours * outlook.gpus:,.1f} GPU-hours"))
    if outlook.dollars is not None:
        rows.append(_row("money", f"${outlook.dollars:,.2f} at ${plan.price:.2f} a GPU-hour"))
    if outlook.kwh is not None:
        rows.append(_row("energy", f"{outlook.kwh:,.0f} kWh at most, of the GPUs alone"))
    return "\n".join(rows)


def _warning(plan: Plan, outlook: Outlook) -> str:
    gpu, needed = outlook.gpu, outlook.memory.total
    if plan.recipe.train.precision == "fp8" and gpu.fp8 is None:
        trouble = f"{gpu.name} has no FP8"
    else:
        trouble = (
            f"{_gb(needed)} will not fit {gpu.name}: it has {_gb(gpu.bytes)}, and a tenth of "
            f"that should stay free"
        )
    if outlook.remedy is None:
        return (
            f"WARNING: {trouble}. Nothing here makes it fit; take a larger GPU or a smaller model."
        )
    assert outlook.remedy_bytes is not None
    return f"WARNING: {trouble}. It fits with {outlook.remedy}: {_gb(outlook.remedy_bytes)}."


def _table(plan: Plan) -> str:
    priced = plan.price is not None
    heads = ["GPU", "has GB", "needs", "fits", "tokens/s", "MFU", "hours"] + ["$"] * priced
    rows = [[*heads, ""]]
    for outlook in plan.table:
        speed, mfu, hours = outlook.tokens_per_s, outlook.mfu, outlook.hours
        row = [
            outlook.gpu.name,
            f"{outlook.gpu.bytes / 1e9:.0f}",
            f"{outlook.memory.total / 1e9:.1f}",
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


def _row(what: str, text: str) -> str:
    return f"{what:<{WIDTH}}{text}"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _hours(hours: float) -> str:
    """Minutes and seconds below an hour, days beside the hours above two days."""
    if hours < 1:
        return f"{clock(3600 * hours)} minutes"
    return f"{hours:,.1f} hours" + (f" ({hours / 24:,.1f} days)" if hours > 48 else "")


def _number(number: float) -> str:
    """13_107_200_000 -> '13.1 billion'."""
    for power, word in ((18, "× 10¹⁸"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            form = ",.3g" if number < 10 ** (power + 3) else ",.0f"
            return f"{number / 10**power:{form}} {word}"
    return f"{number:,}"
