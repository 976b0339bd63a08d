"""The precision of the activations, chosen by a measurement.

bf16 products are 3 to 5 times as fast as fp32 on a CPU with AVX512-BF16 or AMX, and
several times slower on one without. Master weights stay fp32 either way.

The changes of the recipe that a resumed run accepts: what its user allows.

    free      neither the weights nor the order of the data follow from it
    allowed   by its name, or by that of a table it stands in (`--allow`)
    fixed     the checkpoints would not fit another value

`data` is a name twice over: of the table, and of what was prepared, known by its fingerprint.

The resolved recipe of a run: every `auto` replaced, and compared with an earlier part.

A new run writes its resolved recipe into its folder. A run that resumes must have the same: a
value that shapes the weights may change only where that is allowed, and is then written too.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import torch

from gnano.checkpoint.format import checkpoint_step, list_checkpoints
from gnano.config.recipe import Recipe, flatten_recipe
from gnano.model.devices import compile_unsupported_reason, resolve_device
from gnano.model.flops import flops_per_token
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import choose_parallelism
from gnano.train.logging.trackers import check_trackers_installed
from gnano.train.precision import check_precision, choose_precision
from gnano.train.run_dir import (
    DATA_KEY,
    RECIPE_FILE,
    RunMetadata,
    collect_run_facts,
    has_started,
    read_run_metadata,
    write_run_metadata,
)
from gnano.train.tasks.training_task import TrainingTask

UNCHECKED_KEYS = {
    *("train.eval_every", "train.eval_tokens", "train.early_stopping_patience"),
    *("train.eval_tasks", "train.eval_tasks_every", "train.eval_tasks_limit"),
    *("train.save_every", "train.keep_last", "train.keep_every", "train.keep_best"),
    *("train.stability.max_rollbacks", "train.stability.stall_timeout"),
    *("train.parallel", "train.hsdp_replicas", "train.activation_checkpointing"),
    *("train.trackers", "train.profile_start", "train.profile_steps"),
    *("data.folder", "data.workers", "data.keep_downloads", "data.cache_dir"),
    "data.epochs",  # the steps that it makes are compared
}
STEPS_KEY = "train.steps"
MAX_VALUE_CHARS = 60  # letters of a value: of a longer one, the part that differs is shown


@dataclass(frozen=True)
class RecipeChange:
    key: str
    before: Any  # None: there was no such key
    after: Any  # None: there is none any more

    @property
    def is_fixed(self) -> bool:
        if self.key == "train.precision":
            return "fp16" in (self.before, self.after)  # its loss scale is saved
        if self.key == "train.optimizer.kind" or self.key.startswith("train.lora."):
            return True
        return self.key.startswith("model.") and self.key != "model.dropout"

    @property
    def allow_name(self) -> str:
        """What to allow: a source that came or went is one thing, not twelve."""
        whole = self.before is not None and self.after is not None
        return self.key if whole else self.key.rpartition(".")[0]

    def __str__(self) -> str:
        if self.key == DATA_KEY:
            return f"fingerprint {self.before[:12]}… → {self.after[:12]}…"
        before, now = (
            "nothing" if value is None else json.dumps(value, ensure_ascii=False)
            for value in (self.before, self.after)
        )
        if max(len(before), len(now)) > MAX_VALUE_CHARS:
            pairs = zip(before, now, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            start = max(same - MAX_VALUE_CHARS // 3, 0)
            before, now = _excerpt(before, start), _excerpt(now, start)
        return f"{before} → {now}"

    def to_record(self, step: int) -> dict[str, Any]:
        """For the run's recipe. TOML has no null: a side on which there was nothing is left out."""
        entries = {"step": step, "key": self.key, "from": self.before, "to": self.after}
        return {name: value for name, value in entries.items() if value is not None}


def diff_recipes(saved: Mapping[str, Any], requested: Mapping[str, Any]) -> list[RecipeChange]:
    """What differs between the values of two recipes, by dotted names, in their order."""
    found = (
        RecipeChange(key, saved.get(key), requested.get(key))
        for key in sorted({*saved, *requested} - UNCHECKED_KEYS)
    )
    return [change for change in found if change.before != change.after]


def resolve_allowed_names(allow: Sequence[str], keys: Iterable[str]) -> list[str]:
    """What `--allow` was given, as the recipe spells it.

    Raises ValueError where a name is that of no key and no table.
    """
    parts = [key.split(".") for key in [*keys, DATA_KEY]]
    known = sorted({".".join(way[:end]) for way in parts for end in range(1, len(way) + 1)})
    spelled = {name.replace("-", "_"): name for name in known}  # flags are spelled with dashes
    for name in allow:
        if name.replace("-", "_") not in spelled:
            ends = [key for key in known if key.endswith(f".{name}")]
            meant = ends or difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"--allow {name}: the recipe has no such key"
                f"{f' (did you mean {meant[0]!r}?)' if meant else ''}; name keys such as "
                f"train.steps, or a table such as train.schedule for all that is in it."
            )
    return [spelled[name.replace("-", "_")] for name in allow]


def check_changes_allowed(
    changes: list[RecipeChange], allowed: Sequence[str], run: Path, saved_steps: int
) -> None:
    """Raises ValueError, showing what changed, where that may not be; `done` are steps saved."""
    by_key = {change.key: change for change in changes}
    steps = by_key.get(STEPS_KEY)
    others = "go on with the same values, or name another folder (--out)."
    if fixed := [change.key for change in changes if change.is_fixed]:
        what = f"{', '.join(fixed)} can't be allowed to change: its checkpoints would not fit"
        raise ValueError(
            f"{_describe_difference(run, changes)}, and {what}; {others}{_format_changes(changes)}"
        )
    if steps and steps.after < saved_steps:
        raise ValueError(
            f"{run} has done {saved_steps:,} steps, and is now asked for {steps.after:,} in all "
            f"(train.steps); ask for {saved_steps:,} or more, or name another folder (--out)."
        )
    refused = [change for change in changes if not _is_allowed(change.key, allowed)]
    if not refused:
        return
    if steps and changes == [steps] and steps.after > steps.before:
        raise ValueError(
            f"{run} was begun with {steps.before:,} steps, and {steps.after:,} extend it: add "
            f"--allow train.steps if that is meant, {others}{_format_changes(changes)}"
        )
    lacking = [change.allow_name for change in refused]
    if DATA_KEY in by_key and not _is_allowed(DATA_KEY, allowed):
        lacking = [DATA_KEY, *(name for name in lacking if not _is_allowed(name, [DATA_KEY]))]
    flag = " ".join(dict.fromkeys([*allowed, *lacking]))
    raise ValueError(
        f"{_describe_difference(run, changes)}; allow {'it' if len(changes) == 1 else 'them'} "
        f"(--allow {flag}), {others}{_format_changes(changes)}"
    )


def _describe_difference(run: Path, changes: list[RecipeChange]) -> str:
    keys = {change.key for change in changes}
    kinds = {"on other data": DATA_KEY in keys, "with another recipe": bool(keys - {DATA_KEY})}
    what = " and ".join(text for text, differs in kinds.items() if differs)
    count = f"{len(changes)} value{'s differ' if changes[1:] else ' differs'}"
    return f"{run} was begun {what} ({count} from its recipe.toml)"


def _format_changes(changes: list[RecipeChange]) -> str:
    width = max(len(change.key) for change in changes)
    return "".join(f"\n  {change.key:<{width}}   {change}" for change in changes)


def _is_allowed(key: str, allowed: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in allowed)


def _excerpt(text: str, start: int) -> str:
    end = start + MAX_VALUE_CHARS
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"


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
