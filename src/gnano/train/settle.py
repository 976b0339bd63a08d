"""The resolved recipe of a run: every `auto` replaced, and compared with an earlier part.

A new run writes its resolved recipe into its folder. A run that resumes must have the same: a
value that shapes the weights may change only where that is allowed, and is then written too.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from gnano.model.arithmetic import flops_per_token
from gnano.model.compiling import compile_unsupported_reason
from gnano.model.devices import resolve_device
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.begun import (
    RECIPE_FILE,
    RunMetadata,
    collect_run_facts,
    has_started,
    read_run_metadata,
    write_run_metadata,
)
from gnano.train.changes import (
    DATA_KEY,
    RecipeChange,
    check_changes_allowed,
    diff_recipes,
    resolve_allowed_names,
)
from gnano.train.lessons.lessons import TrainingTask
from gnano.train.memory import choose_parallelism
from gnano.train.precision import check_precision, choose_precision
from gnano.train.ranks.world import DistContext
from gnano.train.recipe import Recipe, flatten_recipe
from gnano.train.saving.folders import checkpoint_step, list_checkpoints
from gnano.train.watching.trackers import check_trackers_installed

MIN_COMPILE_FLOPS = 1e15  # FLOPs: about an hour on two cores, where compiling takes a minute
AUTO_FIELDS = ("device", "precision", "compile", "threads")  # chosen once for a whole run
AUTO_VALUES = ("auto", 0)  # values of theirs that leave it to the machine


def resolve_run_device(recipe: Recipe, run: Path) -> str:
    """The kind of device that the run is on: what it was begun on, what is asked for, or a GPU."""
    name = recipe.train.device
    if name == "auto" and has_started(run):
        name = read_run_metadata(run / RECIPE_FILE).recipe.train.device
    return resolve_device(name)


def resolve_recipe(
    recipe: Recipe, run: Path, task: TrainingTask, world: DistContext, allowed: Sequence[str] = ()
) -> Recipe:
    """The recipe with `auto` replaced; written to the run's folder, or compared with it.

    `allow` names keys and tables of the recipe that may differ from what the run was begun
    with. Raises ValueError where recipe, data and an earlier part of the run do not fit together.
    """
    recipe = task.resolve(recipe)
    recipe.train.accumulation_steps(recipe.model.block_size, world.world_size)
    path = run / RECIPE_FILE
    if not path.exists() and (run / "config.json").exists():
        raise ValueError(f"{run} is a model and no run: name another folder (--out).")
    begun = read_run_metadata(path) if has_started(run) else None
    settled = (
        _reuse_saved_values(recipe, begun) if begun else _choose_auto_values(recipe, run, world)
    )
    changed = _check_changes(settled, begun, run, task, allowed)
    check_precision(settled.train.precision, world.device)
    if settled.train.compile == "yes" and (reason := compile_unsupported_reason(world.device)):
        raise ValueError(f'{reason} Or choose train.compile = "no".')
    check_trackers_installed(settled.train.trackers)
    if begun is None:
        facts = collect_run_facts(settled, task.fingerprint, world.world_size)
        base = task.base.run_facts() if task.base else {}
        write_run_metadata(settled, {**facts, **base}, path)
    elif changed:
        done = _count_saved_steps(run)
        entries = [*begun.facts.get("changes", ()), *(change.to_record(done) for change in changed)]
        write_run_metadata(settled, {**begun.facts, "changes": entries}, path)
    if world.world_size > 1 and settled.train.parallel == "auto":
        settled = _replace_train(settled, parallel=_choose_parallelism(settled, world))
    return settled


def _choose_auto_values(recipe: Recipe, run: Path, world: DistContext) -> Recipe:
    """Replace what a new run leaves to the machine."""
    settings, device = recipe.train, world.device
    precision, compiled = settings.precision, settings.compile
    if precision == "auto":
        precision = choose_precision(device)
    if compiled == "auto":
        tokens = settings.steps * settings.tokens_per_step
        pays = device.type == "cuda" or tokens * flops_per_token(recipe.model) > MIN_COMPILE_FLOPS
        compiled = "yes" if pays and compile_unsupported_reason(device) is None else "no"
    # how a sum is split among threads shapes its last bits
    threads = settings.threads or (torch.get_num_threads() if device.type == "cpu" else 0)
    return _replace_train(
        recipe,
        device=resolve_run_device(recipe, run),
        precision=precision,
        compile=compiled,
        threads=threads,
    )


def _choose_parallelism(recipe: Recipe, world: DistContext) -> Literal["ddp", "fsdp"]:
    memory = None
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
    return choose_parallelism(recipe.model, recipe.train, world.world_size, memory)


def _replace_train(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))


def _reuse_saved_values(recipe: Recipe, metadata: RunMetadata) -> Recipe:
    """Replace what was left to the machine as before: a noisy moment cannot change it."""
    left = [name for name in AUTO_FIELDS if getattr(recipe.train, name) in AUTO_VALUES]
    return _replace_train(recipe, **{name: getattr(metadata.recipe.train, name) for name in left})


def _check_changes(
    recipe: Recipe,
    metadata: RunMetadata | None,
    run: Path,
    task: TrainingTask,
    allowed: Sequence[str],
) -> list[RecipeChange]:
    """Return how the recipe differs from the run's; raises ValueError where that is not allowed."""
    new = {**flatten_recipe(recipe), DATA_KEY: task.fingerprint}
    saved = (
        {**flatten_recipe(metadata.recipe), DATA_KEY: metadata.data_fingerprint}
        if metadata
        else new
    )
    allowed = resolve_allowed_names(allowed, {*new, *saved})
    changed = diff_recipes(saved, new)
    check_changes_allowed(changed, allowed, run, _count_saved_steps(run))
    if any(change.key == DATA_KEY for change in changed):
        _check_same_tokenizer(run, task)
    return changed


def _check_same_tokenizer(run: Path, task: TrainingTask) -> None:
    """More data is one thing; ids that stand for other texts are another."""
    saved = list_checkpoints(run)
    if saved and Tokenizer.load(saved[-1]).fingerprint != task.tokenizer.fingerprint:
        raise ValueError(
            f"{task.data_location} was tokenized otherwise than what {run} has learned from, so its "
            f"ids mean other texts; prepare it with the tokenizer of the run "
            f"(data.tokenizer = {str(saved[-1])!r}), or name another folder (--out)."
        )


def _count_saved_steps(run: Path) -> int:
    """Steps of the newest checkpoint."""
    saved = list_checkpoints(run)
    return checkpoint_step(saved[-1]) if saved else 0
