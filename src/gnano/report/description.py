"""Describes a recipe, a data folder, a run or a checkpoint in a few lines."""

from itertools import islice
from pathlib import Path
from typing import Any

from gnano.data.instructions.config import InstructionConfig
from gnano.live import clock
from gnano.model.arithmetic import (
    active_parameters,
    flops_per_token,
    kv_cache_bytes_per_token,
    parameters,
)
from gnano.model.config import ModelConfig
from gnano.report.corpus import describe_data
from gnano.report.metrics import (
    TaskCurve,
    accuracy,
    bits_per_byte,
    figure,
    read_metrics,
    source_bits,
    task_curves,
)
from gnano.report.runs import printable
from gnano.report.standing import KILLED, events_backwards, standing
from gnano.train.recipe import Recipe, load_recipe, recipe_names
from gnano.train.saving.folders import checkpoints, step_of
from gnano.train.saving.hashes import verify_sizes

EVENTS = 5  # of a run's last ones, shown


def describe(what: str) -> str:
    """Describe a recipe by its name or file, or a folder of ours.

    Raises ValueError or FileNotFoundError, in a sentence, for anything else.
    """
    path = Path(what)
    if what in recipe_names() or path.is_file():
        return _describe_recipe(load_recipe(what))
    if (path / "manifest.json").is_file():
        return describe_data(path)
    if (path / "recipe.toml").is_file():
        return _describe_run(path)
    if (path / "config.json").is_file():
        return _describe_checkpoint(path)
    if path.exists():
        raise ValueError(
            f"{what} is not a data folder (manifest.json), a run (recipe.toml) or a "
            f"checkpoint (config.json)."
        )
    raise FileNotFoundError(
        f"There is no {what!r}: no such file or folder, and the recipes are "
        f"{', '.join(recipe_names())}."
    )


def _describe_recipe(recipe: Recipe) -> str:
    settings = recipe.train
    tokens = settings.steps * settings.tokens_per_step
    flops = tokens * flops_per_token(recipe.model)
    return (
        f"{_describe_model(recipe.model)}\n\n"
        f"training     {settings.steps:,} steps × {settings.tokens_per_step:,} tokens"
        f" = {_short(tokens)} tokens, {_short(flops)} FLOPs\n"
        f"micro-batch  {settings.micro_batch} × {recipe.model.block_size:,} tokens\n"
        f"data         {_describe_mix(recipe)}"
    )


def _describe_mix(recipe: Recipe) -> str:
    if isinstance(recipe.data, InstructionConfig):
        epochs = f", {recipe.data.epochs:g} epochs" if recipe.data.epochs else ""
        parts = " · ".join(f"{n} ({s.where})" for n, s in recipe.data.sources.items())
        return f"{recipe.data.kind}{epochs}: {parts or 'none yet'}"
    total = sum(source.weight for source in recipe.data.sources.values())
    mix = " · ".join(f"{name} {s.weight / total:.0%}" for name, s in recipe.data.sources.items())
    return f"{recipe.data.folder}: {mix}"


def _describe_run(run: Path) -> str:
    recipe = load_recipe(str(run / "recipe.toml"))
    now = standing(run)
    rows = []
    if now.step is not None:
        # later steps are from before a rollback, and will be redone
        rows = [row for row in read_metrics(run / "metrics.jsonl") if row["step"] <= now.step]
    state = f"run          {now.state}: step {now.step or 0:,} of {recipe.train.steps:,}"
    if rows:
        loss = "none" if now.loss is None else f"{now.loss:.3f}"
        state += f", loss {loss}, {clock(figure(rows[-1].get('seconds')) or 0)} of training"
    lines = [_describe_recipe(recipe), "", state]
    if now.reason:
        killed = now.reason == KILLED
        why = "its process is gone without a word: killed?" if killed else printable(now.reason)
        lines.append(f"             {why}")
    measured = {row["step"]: bits for row in rows if (bits := bits_per_byte(row)) is not None}
    if measured:
        lines.append(_heldout(next(row for row in rows if row["step"] == max(measured))))
    if tasks := task_curves(rows):
        lines.append(_tasks(tasks))
    skipped = sum(bool(row.get("skipped")) for row in rows)
    rollbacks = sum(event["event"] == "rolled back" for event in events_backwards(run))
    lines.append(f"trouble      {_count(skipped, 'step')} skipped, {_count(rollbacks, 'rollback')}")
    last_events = list(islice(events_backwards(run), EVENTS))[::-1]
    lines += [*_checkpoints(run, measured), *(f"event        {_event(**e)}" for e in last_events)]
    return "\n".join(lines)


def _heldout(row: dict[str, Any]) -> str:
    parts = " · ".join(f"{name} {bits:.3f}" for name, bits in source_bits(row).items())
    total = bits_per_byte(row)
    return f"held-out     {total:.3f} bits per byte at step {row['step']:,} ({parts})"


def _tasks(curves: list[TaskCurve]) -> str:
    """List the tasks that were measured last."""
    step = max(curve.steps[-1] for curve in curves)
    last = [curve for curve in curves if curve.steps[-1] == step]
    parts = " · ".join(f"{curve.name} {accuracy(curve, -1)}" for curve in last)
    return f"tasks        {printable(parts)} (step {step:,.0f})"


def _checkpoints(run: Path, measured: dict[int, float]) -> list[str]:
    """List the checkpoints, with marks for the damaged ones and the best of the others."""
    from gnano.train.saving.retention import best_of

    marks = dict.fromkeys(checkpoints(run), "")
    for folder in marks:
        try:
            verify_sizes(folder)
        except (OSError, ValueError) as error:
            marks[folder] = f"   damaged: {error}"
    if best := best_of([folder for folder, mark in marks.items() if not mark]):
        bits = measured.get(step_of(best))
        marks[best] = "   best" if bits is None else f"   best: {bits:.3f} bits per byte"
    return [f"checkpoint   {f}{mark}" for f, mark in marks.items()] or ["checkpoint   none yet"]


def _event(time: str = "?", event: str = "?", step: int | None = None, **facts: Any) -> str:
    where = "" if step is None else f", step {step:,}"
    more = ", ".join(f"{key} {value}" for key, value in facts.items())
    return printable(f"{time} {event}{where}{f': {more}' if more else ''}")


def _describe_checkpoint(folder: Path) -> str:
    from gnano.model.folder import read_config

    text = f"{folder}\n{_describe_model(read_config(folder))}"
    if (folder / "files.json").is_file():
        verify_sizes(folder)
        text += "\n\nEvery file is there and has its size; --verify checks every byte."
    return text


def _describe_model(config: ModelConfig) -> str:
    parts = parameters(config)
    rows = "".join(f"  {part:<12} {count:>13,}\n" for part, count in parts.items())
    return (
        f"parameters   {sum(parts.values()):>15,}\n{rows}"
        f"shape        {config.n_layer} layers of width {config.n_embd:,}, {config.n_head} query "
        f"and {config.n_kv_head} key/value heads of {config.head_size}, feed-forward "
        f"{config.ffn_hidden:,}, vocabulary {config.vocab_size:,}, context "
        f"{config.block_size:,}\n"
        f"FLOPs        {_short(flops_per_token(config))} a token trained, "
        f"{_short(2 * active_parameters(config))} a token read at short context\n"
        f"bytes        {_short(2 * sum(parts.values()))}B of weights in bf16, "
        f"{kv_cache_bytes_per_token(config):,} B of KV cache a token in bf16"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _short(number: float) -> str:
    """Shorten a number: 13107200000 -> '13.1 G'."""
    for unit in ("", " k", " M", " G", " T", " P", " E", " Z"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} Y"
