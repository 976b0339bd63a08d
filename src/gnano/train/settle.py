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
from gnano.model.compiling import compile_lacking
from gnano.model.devices import device_called
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.begun import NAME, Begun, facts_of, has_begun, read_begun, write_begun
from gnano.train.changes import DATA, Change, changes, names, refuse
from gnano.train.lessons.lessons import Lessons
from gnano.train.memory import choose_parallel
from gnano.train.precision import choose_precision, refuse_precision
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe, flatten
from gnano.train.saving.folders import checkpoints, step_of
from gnano.train.watching.trackers import check_installed

LONG = 1e15  # FLOPs: about an hour on two cores, where compiling takes a minute
SETTLED = ("device", "precision", "compile", "threads")  # chosen once for a whole run
AUTO = ("auto", 0)  # values of theirs that leave it to the machine


def device_of(recipe: Recipe, run: Path) -> str:
    """The kind of device that the run is on: what it was begun on, what is asked for, or a GPU."""
    name = recipe.train.device
    if name == "auto" and has_begun(run):
        name = read_begun(run / NAME).recipe.train.device
    return device_called(name)


def settle(
    recipe: Recipe, run: Path, lessons: Lessons, world: World, allow: Sequence[str] = ()
) -> Recipe:
    """The recipe with `auto` replaced; written to the run's folder, or compared with it.

    `allow` names keys and tables of the recipe that may differ from what the run was begun
    with. Raises ValueError where recipe, data and an earlier part of the run do not fit together.
    """
    recipe = lessons.resolve(recipe)
    recipe.train.accumulation(recipe.model.block_size, world.size)
    path = run / NAME
    if not path.exists() and (run / "config.json").exists():
        raise ValueError(f"{run} is a model and no run: name another folder (--out).")
    begun = read_begun(path) if has_begun(run) else None
    settled = _reuse_saved(recipe, begun) if begun else _fill_auto(recipe, run, world)
    changed = _check_changes(settled, begun, run, lessons, allow)
    refuse_precision(settled.train.precision, world.device)
    if settled.train.compile == "yes" and (reason := compile_lacking(world.device)):
        raise ValueError(f'{reason} Or choose train.compile = "no".')
    check_installed(settled.train.trackers)
    if begun is None:
        facts = facts_of(settled, lessons.fingerprint, world.size)
        base = lessons.base.facts() if lessons.base else {}
        write_begun(settled, {**facts, **base}, path)
    elif changed:
        done = _done(run)
        entries = [*begun.facts.get("changes", ()), *(change.record(done) for change in changed)]
        write_begun(settled, {**begun.facts, "changes": entries}, path)
    if world.size > 1 and settled.train.parallel == "auto":
        settled = _with(settled, parallel=_parallel(settled, world))
    return settled


def _fill_auto(recipe: Recipe, run: Path, world: World) -> Recipe:
    """Replace what a new run leaves to the machine."""
    settings, device = recipe.train, world.device
    precision, compiled = settings.precision, settings.compile
    if precision == "auto":
        precision = choose_precision(device)
    if compiled == "auto":
        tokens = settings.steps * settings.tokens_per_step
        pays = device.type == "cuda" or tokens * flops_per_token(recipe.model) > LONG
        compiled = "yes" if pays and compile_lacking(device) is None else "no"
    # how a sum is split among threads shapes its last bits
    threads = settings.threads or (torch.get_num_threads() if device.type == "cpu" else 0)
    return _with(
        recipe,
        device=device_of(recipe, run),
        precision=precision,
        compile=compiled,
        threads=threads,
    )


def _parallel(recipe: Recipe, world: World) -> Literal["ddp", "fsdp"]:
    memory = None
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
    return choose_parallel(recipe.model, recipe.train, world.size, memory)


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))


def _reuse_saved(recipe: Recipe, begun: Begun) -> Recipe:
    """Replace what was left to the machine as before: a noisy moment cannot change it."""
    left = [name for name in SETTLED if getattr(recipe.train, name) in AUTO]
    return _with(recipe, **{name: getattr(begun.recipe.train, name) for name in left})


def _check_changes(
    recipe: Recipe, begun: Begun | None, run: Path, lessons: Lessons, allow: Sequence[str]
) -> list[Change]:
    """Return how the recipe differs from the run's; raises ValueError where that is not allowed."""
    new = {**flatten(recipe), DATA: lessons.fingerprint}
    saved = {**flatten(begun.recipe), DATA: begun.data} if begun else new
    allow = names(allow, {*new, *saved})
    changed = changes(saved, new)
    refuse(changed, allow, run, _done(run))
    if any(change.key == DATA for change in changed):
        _refuse_other_ids(run, lessons)
    return changed


def _refuse_other_ids(run: Path, lessons: Lessons) -> None:
    """More data is one thing; ids that stand for other texts are another."""
    saved = checkpoints(run)
    if saved and Tokenizer.load(saved[-1]).fingerprint != lessons.tokenizer.fingerprint:
        raise ValueError(
            f"{lessons.where} was tokenized otherwise than what {run} has learned from, so its "
            f"ids mean other texts; prepare it with the tokenizer of the run "
            f"(data.tokenizer = {str(saved[-1])!r}), or name another folder (--out)."
        )


def _done(run: Path) -> int:
    """Steps of the newest checkpoint."""
    saved = checkpoints(run)
    return step_of(saved[-1]) if saved else 0
