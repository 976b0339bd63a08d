"""What is this? A recipe, a data folder, a run or a checkpoint, said in a few lines."""

from pathlib import Path

from gnano.live import clock
from gnano.model import (
    ModelConfig,
    active_parameters,
    flops_per_token,
    kv_cache_bytes_per_token,
    parameters,
)
from gnano.report.corpus import describe_data
from gnano.report.metrics import read_metrics
from gnano.train import Recipe, load_recipe, recipe_names


def describe(what: str) -> str:
    """A recipe's name or file, or a folder of ours, in words and figures.

    Raises ValueError or FileNotFoundError, in a sentence, for anything else.
    """
    path = Path(what)
    if what in recipe_names() or path.is_file():
        return describe_recipe(load_recipe(what))
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


def describe_recipe(recipe: Recipe) -> str:
    settings = recipe.train
    tokens = settings.steps * settings.tokens_per_step
    flops = tokens * flops_per_token(recipe.model)
    whole = sum(source.weight for source in recipe.data.sources.values())
    mix = " · ".join(f"{name} {s.weight / whole:.0%}" for name, s in recipe.data.sources.items())
    return (
        f"{_describe_model(recipe.model)}\n\n"
        f"training     {settings.steps:,} steps × {settings.tokens_per_step:,} tokens"
        f" = {_short(tokens)} tokens, {_short(flops)} FLOPs\n"
        f"micro-batch  {settings.micro_batch} × {recipe.model.block_size:,} tokens\n"
        f"data         {recipe.data.folder}: {mix}"
    )


def _describe_run(run: Path) -> str:
    from gnano.train import checkpoints

    recipe = load_recipe(str(run / "recipe.toml"))
    lines = [describe_recipe(recipe), ""]
    saved = checkpoints(run)
    if (run / "metrics.jsonl").is_file():
        rows = read_metrics(run / "metrics.jsonl")
        last = rows[-1]
        state = "finished" if last.get("final") else "not finished"
        lines.append(
            f"run          {state}: step {last['step']:,} of {recipe.train.steps:,}, "
            f"loss {last['loss']:.3f}, {clock(last['seconds'])} of training"
        )
        heldout = [row for row in rows if "heldout" in row]
        if heldout:
            found = heldout[-1]["heldout"]
            parts = " · ".join(f"{name} {bits:.3f}" for name, bits in found["sources"].items())
            lines.append(
                f"held-out     {found['bits_per_byte']:.3f} bits per byte at step "
                f"{heldout[-1]['step']:,} ({parts})"
            )
    lines += [f"checkpoint   {folder}" for folder in saved] or ["checkpoint   none yet"]
    return "\n".join(lines)


def _describe_checkpoint(folder: Path) -> str:
    from gnano.model import read_config
    from gnano.train import verify

    text = f"{folder}\n{_describe_model(read_config(folder))}"
    if (folder / "files.json").is_file():
        verify(folder)
        text += "\n\nEvery file matches its checksum."
    return text


def _describe_model(shape: ModelConfig) -> str:
    parts = parameters(shape)
    rows = [f"  {part:<12} {count:>13,}" for part, count in parts.items()]
    return "\n".join(
        [
            f"parameters   {sum(parts.values()):>15,}",
            *rows,
            f"shape        {shape.n_layer} layers of width {shape.n_embd:,}, {shape.n_head} query "
            f"and {shape.n_kv_head} key/value heads of {shape.head_size}, feed-forward "
            f"{shape.ffn_hidden:,}, vocabulary {shape.vocab_size:,}, context {shape.block_size:,}",
            f"FLOPs        {_short(flops_per_token(shape))} a token trained, "
            f"{_short(2 * active_parameters(shape))} a token read at short context",
            f"bytes        {_short(2 * sum(parts.values()))}B of weights in bf16, "
            f"{kv_cache_bytes_per_token(shape):,} B of KV cache a token in bf16",
        ]
    )


def _short(number: float) -> str:
    """13107200000 -> '13.1 G'."""
    for unit in ("", " k", " M", " G", " T", " P", " E", " Z"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} Y"
