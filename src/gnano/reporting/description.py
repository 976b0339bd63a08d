"""Describes a recipe, a data folder, a run or a checkpoint, as text.

`verify_checkpoints` verifies every byte of checkpoints against the hashes written with them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnano.checkpoint.run_checkpoints import (
    best_checkpoint,
    checkpoint_step,
    list_checkpoints,
    lock_for_reading,
    verify_checksums,
    verify_file_sizes,
)
from gnano.config.data_config import InstructionConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe, list_recipes, load_recipe
from gnano.data.manifest import Manifest, count_bad_records, warn_empty_heldout
from gnano.data.source_files import format_skipped_files
from gnano.model.flops import (
    flops_per_token,
    kv_cache_bytes_per_token,
    num_active_parameters,
    parameters_by_part,
)
from gnano.reporting.plots import finite_number, heldout_bits_per_byte, read_curves
from gnano.reporting.run_status import (
    PROBABLY_KILLED,
    iter_events_reversed,
    read_run_status,
    to_printable_line,
)
from gnano.utils.formatting import format_clock, format_gb, format_si, format_table, plural
from gnano.utils.jsonl_log import read_metrics

MAX_EVENTS = 5  # the number of a run's last events that are shown
BAR_WIDTH = 14  # characters of the longest bar
BAR_BLOCKS = " ▏▎▍▌▋▊▉█"


def describe(target: str) -> str:
    """Describe a recipe by its name or file, or a folder made by gnano.

    Raises ValueError or FileNotFoundError for anything else.
    """
    path = Path(target)
    if target in list_recipes() or path.is_file():
        return _describe_recipe(load_recipe(target))
    if (path / "manifest.json").is_file():
        return describe_data(path)
    if (path / "recipe.toml").is_file():
        return _describe_run(path)
    if (path / "config.json").is_file():
        from gnano.model.hf_io import load_config  # loads torch

        text = f"{path}\n{_describe_model(load_config(path))}"
        if (path / "files.json").is_file():
            verify_file_sizes(path)
            text += "\n\nEvery file is there and has its size; --verify checks every byte."
        return text
    if path.exists():
        raise ValueError(
            f"{target} is not a data folder (manifest.json), a run (recipe.toml) or a "
            f"checkpoint (config.json)."
        )
    raise FileNotFoundError(
        f"There is no {target!r}: no such file or folder, and the recipes are "
        f"{', '.join(list_recipes())}."
    )


def describe_data(folder: Path) -> str:
    """Describe a folder by its manifest: sources, mix, dropped documents, and document lengths."""
    manifest = Manifest.load(folder)
    sources = manifest.sources
    total_weight = sum(manifest.weights.values())
    rows = [
        (
            name,
            f"{manifest.weights[name] / total_weight:.1%}",
            f"{source.documents:,}",
            f"{source.tokens:,}",
            f"{source.bytes / max(source.tokens, 1):.2f}",
            f"{source.heldout_tokens:,}",
            f"{len(source.shards):,}",
            ", ".join(f"{n:,} {why}" for why, n in source.dropped.items() if n) or "none",
        )
        for name, source in sources.items()
    ]
    total = sum(source.tokens for source in sources.values())
    headers = ("source", "share", "documents", "tokens", "bytes/token", "held out", "shards")
    lines = [
        f"{folder}: {total:,} training tokens, {manifest.tokenizer['name']} tokenizer of "
        f"{manifest.tokenizer['vocab_size']:,}, fingerprint {manifest.fingerprint[:12]}"
    ]
    if not manifest.complete:
        incomplete = [name for name, source in sources.items() if not source.complete]
        lines.append(
            f"Not complete yet ({', '.join(incomplete)}): run the same `gnano prepare` to resume; "
            f"`gnano pretrain` may start and waits for the shards it needs."
        )
    # the share of documents by length, a row for each power of two
    lengths = {
        name: [sum(n) for n in zip(*(task.lengths for task in source.tasks), strict=True)]
        for name, source in sources.items()
    }
    used = [n for counts in lengths.values() for n, count in enumerate(counts) if count]
    histogram = [("tokens in a document", *lengths)]
    for n in range(min(used, default=0), max(used, default=-1) + 1):
        cells = []
        for counts in lengths.values():
            share = counts[n] / max(sum(counts), 1) if counts else 0
            full, eighths = divmod(round(share * BAR_WIDTH * 8), 8)
            bar = BAR_BLOCKS[-1] * full + BAR_BLOCKS[eighths].strip()
            cells.append(f"{share:6.1%} {bar:<{BAR_WIDTH}}")
        histogram.append((f"{2**n:,} – {2 ** (n + 1) - 1:,}", *cells))
    lines += [
        "",
        *format_table([(*headers, "dropped"), *rows], left=(0, len(headers))),
        "",
        *format_table(histogram, left=range(len(sources) + 1)),
        *warn_empty_heldout(folder, manifest),
    ]
    for name, plan in manifest.plan.sources.items():
        bad = count_bad_records(plan, sources[name].tasks).format_summary()
        lines += [f"{name}: {bad}"] if bad else []
        if plan.commit:
            where = f"{plan.repo} {plan.config}".strip()
            lines.append(f"{name}: {where}, {plan.split} at commit {plan.commit[:12]}")
    lines += [f"{name}: {format_skipped_files(left)}" for name, left in manifest.skipped.items()]
    return "\n".join(lines)


def describe_files(folder: Path) -> str:
    """Return the number of files in a model folder, and their size."""
    sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    return f"{folder}: {len(sizes)} files, {format_gb(sum(sizes))}"


def verify_checkpoints(
    target: str, on_progress: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Verify a checkpoint, or each of a run, and yield a line for each as soon as it is done.

    `on_progress` receives a text before each checkpoint. Raises ValueError for a path without
    checkpoints, and at the end if one is damaged.
    """
    path = Path(target)
    folders = [path] if (path / "files.json").is_file() else list_checkpoints(path)
    if not folders:
        raise ValueError(
            f"{target} holds no checkpoint to verify; give a run or a checkpoint "
            f"(for prepared data: gnano data verify FOLDER)."
        )
    damaged = []
    for number, folder in enumerate(folders, 1):
        if not lock_for_reading(folder) and folder != path:
            continue  # a running process has just replaced it by a newer one
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        on_progress(f"verifying {folder} · {number} of {len(folders)} · {format_gb(size)}")
        try:
            verify_checksums(folder, from_disk=True)
            yield f"{folder}: intact"
        except (OSError, ValueError) as error:
            damaged.append(folder.name)
            yield f"{folder}: damaged: {error}"
    if damaged:
        raise ValueError(
            f"Damaged: {', '.join(damaged)}, {len(damaged)} of {len(folders)}; restore the file, "
            f"or delete that checkpoint and resume from another."
        )


def _describe_recipe(recipe: Recipe) -> str:
    train, data = recipe.train, recipe.data
    if isinstance(data, InstructionConfig):
        epochs = f", {data.epochs:g} epochs" if data.epochs else ""
        parts = " · ".join(f"{name} ({s.location})" for name, s in data.sources.items())
        mix = f"{data.kind}{epochs}: {parts or 'none yet'}"
    else:
        total = sum(source.weight for source in data.sources.values())
        parts = " · ".join(f"{name} {s.weight / total:.0%}" for name, s in data.sources.items())
        mix = f"{data.folder}: {parts}"
    tokens = train.steps * train.tokens_per_step
    flops = tokens * flops_per_token(recipe.model)
    return (
        f"{_describe_model(recipe.model)}\n\n"
        f"training     {train.steps:,} steps × {train.tokens_per_step:,} tokens"
        f" = {format_si(tokens)} tokens, {format_si(flops)} FLOPs\n"
        f"micro-batch  {train.micro_batch_size} × {recipe.model.block_size:,} tokens\n"
        f"data         {mix}"
    )


def _describe_run(run: Path) -> str:
    recipe, status = load_recipe(str(run / "recipe.toml")), read_run_status(run)
    rows = []
    if status.step is not None:
        # later steps are from before a rollback, and will be redone
        rows = [row for row in read_metrics(run / "metrics.jsonl") if row["step"] <= status.step]
    state = f"run          {status.state}: step {status.step or 0:,} of {recipe.train.steps:,}"
    if rows:
        loss = "none" if status.loss is None else f"{status.loss:.3f}"
        clock = format_clock(finite_number(rows[-1].get("seconds")) or 0)
        state += f", loss {loss}, {clock} of training"
    lines = [_describe_recipe(recipe), "", state]
    if status.reason == PROBABLY_KILLED:
        lines.append("             its process ended without logging a reason: killed?")
    elif status.reason:
        lines.append(f"             {to_printable_line(status.reason)}")

    bits_by_step: dict[int, float] = {}
    for row in rows:
        bits, sources = heldout_bits_per_byte(row)
        if bits is not None:
            bits_by_step[row["step"]] = bits
            parts = " · ".join(f"{name} {value:.3f}" for name, value in sources.items())
    if bits_by_step:
        step, bits = list(bits_by_step.items())[-1]
        lines.append(f"held-out     {bits:.3f} bits per byte at step {step:,} ({parts})")
    if tasks := read_curves(rows).tasks:
        last = max(curve.steps[-1] for curve in tasks)
        accuracies = [f"{c.name} {c.format_point(-1)}" for c in tasks if c.steps[-1] == last]
        lines.append(f"tasks        {to_printable_line(' · '.join(accuracies))} (step {last:,.0f})")
    events = list(iter_events_reversed(run))
    skipped = sum(bool(row.get("skipped")) for row in rows)
    rollbacks = sum(event["event"] == "rolled back" for event in events)
    lines.append(f"trouble      {plural(skipped, 'step')} skipped, {plural(rollbacks, 'rollback')}")

    marks = dict.fromkeys(list_checkpoints(run), "")
    for folder in marks:
        try:
            verify_file_sizes(folder)
        except (OSError, ValueError) as error:
            marks[folder] = f"   damaged: {error}"
    if best := best_checkpoint([folder for folder, mark in marks.items() if not mark]):
        at_best = bits_by_step.get(checkpoint_step(best))
        marks[best] = "   best" if at_best is None else f"   best: {at_best:.3f} bits per byte"
    lines += [f"checkpoint   {f}{mark}" for f, mark in marks.items()] or ["checkpoint   none yet"]
    for event in events[:MAX_EVENTS][::-1]:
        when, kind, at = (event.pop(key, None) for key in ("time", "event", "step"))
        where = "" if at is None else f", step {at:,}"
        facts = ", ".join(f"{key} {value}" for key, value in event.items())
        text = f"{when or '?'} {kind}{where}{f': {facts}' if facts else ''}"
        lines.append(f"event        {to_printable_line(text)}")
    return "\n".join(lines)


def _describe_model(config: ModelConfig) -> str:
    parts = parameters_by_part(config)
    rows = "".join(f"  {part:<12} {count:>13,}\n" for part, count in parts.items())
    return (
        f"parameters   {sum(parts.values()):>15,}\n{rows}"
        f"shape        {config.n_layer} layers of width {config.n_embd:,}, {config.n_head} query "
        f"and {config.n_kv_head} key/value heads of {config.head_size}, feed-forward "
        f"{config.ffn_hidden:,}, vocabulary {config.vocab_size:,}, context "
        f"{config.block_size:,}\n"
        f"FLOPs        {format_si(flops_per_token(config))} per token in training, "
        f"{format_si(2 * num_active_parameters(config))} per token read at short context\n"
        f"bytes        {format_si(2 * sum(parts.values()))}B of weights in bf16, "
        f"{kv_cache_bytes_per_token(config):,} B of KV cache per token in bf16"
    )
