"""The changes of the recipe that a resumed run accepts: what its user allows.

    free      neither the weights nor the order of the data follow from it
    allowed   by its name, or by that of a table it stands in (`--allow`)
    fixed     the checkpoints would not fit another value

`data` is a name twice over: of the table, and of what was prepared, known by its fingerprint.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

UNCHECKED_KEYS = {
    *("train.eval_every", "train.eval_tokens", "train.early_stopping_patience"),
    *("train.eval_tasks", "train.eval_tasks_every", "train.eval_tasks_limit"),
    *("train.save_every", "train.keep_last", "train.keep_every", "train.keep_best"),
    *("train.stability.rollbacks", "train.stability.stall"),
    *("train.parallel", "train.hsdp_replicas", "train.activation_checkpointing"),
    *("train.trackers", "train.profile_start", "train.profile_steps"),
    *("data.folder", "data.workers", "data.keep_downloads", "data.cache_dir"),
    "data.epochs",  # the steps that it makes are compared
}
DATA_KEY, STEPS_KEY = "data", "train.steps"
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
