"""The resolved recipe of a run: every `auto` replaced, and compared with the run's earlier recipe.

A new run writes its resolved recipe into its folder. A resumed run must have the same values, apart
from those that its user allows to change (`--allow`), which are then recorded:

    unchecked  neither the weights nor the order of the data depend on it
    allowed    by its name, or by that of a table that contains it
    fixed      the checkpoints would not fit another value

`data` names two things: the table, and the prepared data, known by its fingerprint.
"""

import difflib
import json
import timeit
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os.path import commonprefix
from pathlib import Path
from typing import Any, Literal

import torch

from gnano.checkpoint.run_checkpoints import checkpoint_step, list_checkpoints
from gnano.config.recipe import Recipe, flatten_recipe
from gnano.config.train_config import TrainConfig
from gnano.model.flops import flops_per_token
from gnano.model.fp8 import fp8_unsupported_reason
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.distributed.context import DistContext, find_missing_peer_access
from gnano.train.estimate import choose_parallelism, estimate_memory, fits_in_memory
from gnano.train.logging.trackers import check_trackers_installed
from gnano.train.run_dir import (
    DATA_KEY,
    RECIPE_FILE,
    RunMetadata,
    collect_run_facts,
    has_started,
    read_run_metadata,
    write_run_metadata,
)
from gnano.train.training_task import TrainingTask
from gnano.utils.platform_support import (
    compile_unsupported_reason,
    resolve_device,
    unused_gpu_reason,
)

UNCHECKED_KEYS = {
    *("train.eval_every", "train.eval_tokens", "train.early_stopping_patience"),
    *("train.eval_tasks", "train.eval_tasks_every", "train.eval_tasks_limit"),
    *("train.save_every", "train.keep_last", "train.keep_every", "train.keep_best"),
    *("train.stability.max_rollbacks", "train.stability.stall_timeout"),
    *("train.parallel", "train.hsdp_replicas", "train.reshard_after_forward"),
    "train.activation_checkpointing",
    *("train.trackers", "train.profile_start", "train.profile_steps"),
    *("data.folder", "data.workers", "data.keep_downloads", "data.cache_dir"),
    "data.epochs",  # the resulting steps are compared
}
STEPS_KEY = "train.steps"
MAX_VALUE_CHARS = 60  # characters of a value: of a longer one, the part that differs is shown
MIN_COMPILE_FLOPS = 1e15  # FLOPs: about an hour on two cores, where compiling takes a minute
MIN_BF16_SPEEDUP = 1.5  # bf16 rounds more, so it has to be clearly faster
AUTO_FIELDS = ("device", "precision", "compile", "threads")  # chosen once for the whole run
AUTO_VALUES = ("auto", 0)  # values of these fields that let the program choose


def resolve_recipe(
    recipe: Recipe, run: Path, task: TrainingTask, world: DistContext, allowed: Sequence[str] = ()
) -> Recipe:
    """Return the recipe with `auto` replaced; write it to the run's folder, or compare with it.

    `allowed` names keys and tables of the recipe that may differ from the run's. Raises ValueError
    where recipe, data and the run so far do not fit together.
    """
    if task.base_config is not None:
        recipe = replace(recipe, model=replace(task.base_config, dropout=recipe.model.dropout))
    recipe = task.resolve(recipe)
    recipe.train.accumulation_steps(recipe.model.block_size, world.world_size)
    path, device = run / RECIPE_FILE, world.device
    if not path.exists() and (run / "config.json").exists():
        raise ValueError(f"{run} is a model folder, not a run; choose another folder (--out).")
    saved = read_run_metadata(path) if has_started(run) else None
    recipe = _replace_auto_values(recipe, saved, device)
    # a new run has nothing to compare, but a misspelled name is an error
    changes = _check_changes(recipe, saved, run, task, allowed) if saved or allowed else []
    if recipe.train.precision == "fp8" and (reason := fp8_unsupported_reason(device)):
        raise ValueError(f'{reason} Choose train.precision = "bf16".')
    if recipe.train.compile == "yes" and (reason := compile_unsupported_reason(device)):
        raise ValueError(f'{reason} Or choose train.compile = "no".')
    if recipe.train.trackers:
        check_trackers_installed(recipe.train.trackers)
    if saved is None:
        facts = collect_run_facts(recipe, task.fingerprint, world.world_size)
        if task.base:
            facts |= {"base": str(task.base.folder), "base_sha256": task.base.sha256}
        write_run_metadata(recipe, facts, path)
    elif changes:
        step, records = _count_saved_steps(run), [*saved.facts.get("changes", ())]
        for change in changes:
            values = {"from": change.before, "to": change.after}
            values = {name: value for name, value in values.items() if value is not None}
            records.append({"step": step, "key": change.key, **values})  # TOML has no null
        write_run_metadata(recipe, {**saved.facts, "changes": records}, path)
    if world.world_size > 1:
        recipe = replace(recipe, train=_choose_parallelism(recipe, world))
    return recipe


def _choose_parallelism(recipe: Recipe, world: DistContext) -> TrainConfig:
    """Return the settings with those of several ranks chosen for these devices.

    Raises ValueError where only FSDP fits, but would be slow.
    """
    model, config, device = recipe.model, recipe.train, world.device
    if device.type != "cuda":
        return choose_parallelism(model, config, world.world_size, None)
    memory = torch.cuda.get_device_properties(device).total_memory
    # one GPU on each machine: they are connected by a network
    has_peer_access = torch.cuda.device_count() > 1 and not find_missing_peer_access()
    chosen = choose_parallelism(model, config, world.world_size, memory, has_peer_access)
    if config.parallel == "auto" and chosen.parallel == "ddp":
        estimate = estimate_memory(model, chosen, world.world_size)
        if not fits_in_memory(estimate, memory):
            raise ValueError(
                f"A complete model on each GPU needs {estimate.total_bytes / 1e9:.0f} GB, and they "
                f"have {memory / 1e9:.0f}. Sharded over them (fsdp) it would be slow, because they "
                f"cannot access one another's memory. Reduce train.micro_batch_size, set "
                f'train.activation_checkpointing, or choose train.parallel = "fsdp" or "ddp".'
            )
    return chosen


def _replace_auto_values(recipe: Recipe, saved: RunMetadata | None, device: torch.device) -> Recipe:
    """Return the recipe with the saved run's values for `auto`, or with chosen ones."""
    config = recipe.train
    if saved:  # chosen once: a noisy measurement cannot change them
        unset = [name for name in AUTO_FIELDS if getattr(config, name) in AUTO_VALUES]
        values = {name: getattr(saved.recipe.train, name) for name in unset}
        return replace(recipe, train=replace(config, **values))
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    compiled = config.compile
    if compiled == "auto":
        pays = _compiling_pays(recipe, device)
        compiled = "yes" if pays and compile_unsupported_reason(device) is None else "no"
    # the last bits of a sum depend on the number of threads
    threads = config.threads or (torch.get_num_threads() if device.type == "cpu" else 0)
    values = {"precision": precision, "compile": compiled, "threads": threads}
    return replace(recipe, train=replace(config, device=resolve_device(config.device), **values))


def _compiling_pays(recipe: Recipe, device: torch.device) -> bool:
    tokens = recipe.train.steps * recipe.train.tokens_per_step
    return device.type == "cuda" or tokens * flops_per_token(recipe.model) > MIN_COMPILE_FLOPS


def describe_slower_choices(
    asked: TrainConfig, recipe: Recipe, device: torch.device
) -> Iterator[str]:
    """Yield a message for each `auto` that became a slow choice for a reason that can be mended."""
    if asked.device == "auto" and device.type == "cpu" and (reason := unused_gpu_reason()):
        yield f"Training on the CPU, although this machine has an NVIDIA GPU. {reason}"
    is_auto = asked.compile == "auto" and recipe.train.compile == "no"
    pays = is_auto and _compiling_pays(recipe, device)
    if pays and (reason := compile_unsupported_reason(device)):
        yield f"The model is not compiled, so steps are slower. {reason}"


def choose_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Return bf16 where the device supports it natively, else fp16 on a GPU and fp32 on a CPU.

    A measurement decides on a CPU: bf16 products are 3 to 5 times as fast as fp32 on one with
    AVX512-BF16 or AMX, and several times slower on others. On Apple's GPUs it is fp32: the others
    were never measured there. Master weights are fp32 either way.
    """
    if device.type == "mps":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    a = torch.ones(768, 768)
    fp32, bf16 = (  # seconds of a matrix product; all of them take about 50 ms
        min(timeit.repeat(partial(torch.matmul, x, x), number=1)) for x in (a, a.bfloat16())
    )
    return "bf16" if fp32 >= MIN_BF16_SPEEDUP * bf16 else "fp32"


@dataclass(frozen=True)
class RecipeChange:
    """A value of the recipe that differs from the run's."""

    key: str
    before: Any  # None: the key was absent
    after: Any  # None: the key is absent now

    @property
    def is_fixed(self) -> bool:
        """Return whether the change can never be allowed."""
        if self.key == "train.precision":
            return "fp16" in (self.before, self.after)  # its loss scale is saved
        if self.key == "train.optimizer.kind" or self.key.startswith("train.lora."):
            return True
        return self.key.startswith("model.") and self.key != "model.dropout"

    def __str__(self) -> str:
        if self.key == DATA_KEY:
            return f"fingerprint {self.before[:12]}… → {self.after[:12]}…"
        texts = [
            "nothing" if value is None else json.dumps(value, ensure_ascii=False)
            for value in (self.before, self.after)
        ]
        if max(map(len, texts)) > MAX_VALUE_CHARS:
            same = len(commonprefix(texts))  # noqa: RUF071  they are no paths
            start = max(same - MAX_VALUE_CHARS // 3, 0)
            end = start + MAX_VALUE_CHARS
            texts = [
                f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}" for text in texts
            ]
        return " → ".join(texts)


def _check_changes(
    recipe: Recipe,
    saved: RunMetadata | None,
    run: Path,
    task: TrainingTask,
    allowed: Sequence[str],
) -> list[RecipeChange]:
    """Return how the recipe differs from the run's; raise ValueError where that is not allowed."""
    new = old = {**flatten_recipe(recipe), DATA_KEY: task.fingerprint}
    if saved:
        old = {**flatten_recipe(saved.recipe), DATA_KEY: saved.data_fingerprint}
    keys = sorted({*new, *old})
    allowed = _resolve_allowed_names(allowed, keys)
    pairs = (RecipeChange(key, old.get(key), new.get(key)) for key in keys)
    changes = [c for c in pairs if c.key not in UNCHECKED_KEYS and c.before != c.after]
    if not changes:
        return []
    _check_allowed(changes, allowed, run)
    checkpoints = list_checkpoints(run) if old[DATA_KEY] != new[DATA_KEY] else []
    # other data may be allowed, but not ids that mean other texts
    if checkpoints and (load_tokenizer(checkpoints[-1]).fingerprint != task.tokenizer.fingerprint):
        raise ValueError(
            f"{task.data_location} was tokenized with another tokenizer than the data of "
            f"{run}, so its ids mean other texts. Prepare it with the tokenizer of the run "
            f"(data.tokenizer = {str(checkpoints[-1])!r}), or choose another folder (--out)."
        )
    return changes


def _check_allowed(changes: list[RecipeChange], allowed: Sequence[str], run: Path) -> None:
    """Raise ValueError, listing the changes, unless all of them are allowed."""

    def is_allowed(key: str, names: Sequence[str] = allowed) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in names)

    by_key = {change.key: change for change in changes}
    steps = by_key.get(STEPS_KEY)
    kinds = {"on other data": DATA_KEY in by_key, "with another recipe": set(by_key) != {DATA_KEY}}
    how = " and ".join(text for text, differs in kinds.items() if differs)
    count = f"{len(changes)} value{'s differ' if changes[1:] else ' differs'}"
    difference = f"{run} was started {how} ({count} from its recipe.toml)"
    width = max(map(len, by_key))
    lines = "".join(f"\n  {change.key:<{width}}   {change}" for change in changes)
    others = f"resume with the same values, or choose another folder (--out).{lines}"

    if fixed := [change.key for change in changes if change.is_fixed]:
        raise ValueError(
            f"{difference}, and {', '.join(fixed)} cannot change, because the checkpoints would "
            f"not fit; {others}"
        )
    if steps and steps.after < (saved_steps := _count_saved_steps(run)):
        raise ValueError(
            f"{run} has completed {saved_steps:,} steps, but train.steps is {steps.after:,}; set "
            f"it to {saved_steps:,} or more, or choose another folder (--out)."
        )
    refused = [change for change in changes if not is_allowed(change.key)]
    if not refused:
        return
    if steps and changes == [steps] and steps.after > steps.before:
        raise ValueError(
            f"{run} was started with {steps.before:,} steps, and {steps.after:,} extend it: add "
            f"--allow train.steps to extend it, {others}"
        )
    missing = [  # of an added or removed source, its table
        change.key.rpartition(".")[0] if None in (change.before, change.after) else change.key
        for change in refused
    ]
    if DATA_KEY in by_key and not is_allowed(DATA_KEY):
        missing = [DATA_KEY, *(name for name in missing if not is_allowed(name, [DATA_KEY]))]
    flag = " ".join(dict.fromkeys([*allowed, *missing]))
    raise ValueError(
        f"{difference}; allow {'it' if len(changes) == 1 else 'them'} (--allow {flag}), {others}"
    )


def _resolve_allowed_names(allow: Sequence[str], keys: Iterable[str]) -> list[str]:
    """Return the names given to `--allow`, as the recipe spells them.

    Raises ValueError where a name is neither a key nor a table.
    """
    paths = [key.split(".") for key in keys]
    known = sorted({".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)})
    spelled = {name.replace("-", "_"): name for name in known}  # flags are spelled with dashes
    for name in allow:
        if name.replace("-", "_") not in spelled:
            ends = [key for key in known if key.endswith(f".{name}")]
            similar = ends or difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"--allow {name}: the recipe has no such key"
                f"{f' (did you mean {similar[0]!r}?)' if similar else ''}. Give keys such as "
                f"train.steps, or a table such as train.schedule for all keys in it."
            )
    return [spelled[name.replace("-", "_")] for name in allow]


def _count_saved_steps(run: Path) -> int:
    """Return the step of the newest checkpoint, or 0."""
    checkpoints = list_checkpoints(run)
    return checkpoint_step(checkpoints[-1]) if checkpoints else 0
