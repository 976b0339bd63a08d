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

FREE = {
    *("train.eval_every", "train.eval_tokens", "train.patience"),
    *("train.tasks", "train.tasks_every", "train.tasks_limit"),
    *("train.save_every", "train.keep", "train.keep_every", "train.keep_best"),
    *("train.guard.rollbacks", "train.guard.stall"),
    *("train.parallel", "train.replicas", "train.recompute"),
    *("train.trackers", "train.profile_at", "train.profile_steps"),
    *("data.folder", "data.workers", "data.keep_downloads", "data.downloads"),
    "data.epochs",  # the steps that it makes are compared
}
DATA, STEPS = "data", "train.steps"
LONG = 60  # letters of a value: of a longer one, the part that differs is shown


@dataclass(frozen=True)
class Change:
    key: str
    before: Any  # None: there was no such key
    now: Any  # None: there is none any more

    @property
    def fixed(self) -> bool:
        if self.key == "train.precision":
            return "fp16" in (self.before, self.now)  # its loss scale is saved
        if self.key == "train.optimizer.kind" or self.key.startswith("train.lora."):
            return True
        return self.key.startswith("model.") and self.key != "model.dropout"

    @property
    def name(self) -> str:
        """What to allow: a source that came or went is one thing, not twelve."""
        whole = self.before is not None and self.now is not None
        return self.key if whole else self.key.rpartition(".")[0]

    def __str__(self) -> str:
        if self.key == DATA:
            return f"fingerprint {self.before[:12]}… → {self.now[:12]}…"
        before, now = (
            "nothing" if value is None else json.dumps(value, ensure_ascii=False)
            for value in (self.before, self.now)
        )
        if max(len(before), len(now)) > LONG:
            pairs = zip(before, now, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            start = max(same - LONG // 3, 0)
            before, now = _part(before, start), _part(now, start)
        return f"{before} → {now}"

    def record(self, step: int) -> dict[str, Any]:
        """For the run's recipe. TOML has no null: a side on which there was nothing is left out."""
        entries = {"step": step, "key": self.key, "from": self.before, "to": self.now}
        return {name: value for name, value in entries.items() if value is not None}


def changes(had: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Change]:
    """What differs between the values of two recipes, by dotted names, in their order."""
    found = (Change(key, had.get(key), asked.get(key)) for key in sorted({*had, *asked} - FREE))
    return [change for change in found if change.before != change.now]


def names(allow: Sequence[str], keys: Iterable[str]) -> list[str]:
    """What `--allow` was given, as the recipe spells it.

    Raises ValueError where a name is that of no key and no table.
    """
    parts = [key.split(".") for key in [*keys, DATA]]
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


def refuse(changed: list[Change], allow: Sequence[str], run: Path, done: int) -> None:
    """Raises ValueError, showing what changed, where that may not be; `done` are steps saved."""
    by_key = {change.key: change for change in changed}
    steps = by_key.get(STEPS)
    others = "go on with the same values, or name another folder (--out)."
    if fixed := [change.key for change in changed if change.fixed]:
        what = f"{', '.join(fixed)} can't be allowed to change: its checkpoints would not fit"
        raise ValueError(f"{_begun(run, changed)}, and {what}; {others}{_lines(changed)}")
    if steps and steps.now < done:
        raise ValueError(
            f"{run} has done {done:,} steps, and is now asked for {steps.now:,} in all "
            f"(train.steps); ask for {done:,} or more, or name another folder (--out)."
        )
    refused = [change for change in changed if not _allowed(change.key, allow)]
    if not refused:
        return
    if steps and changed == [steps] and steps.now > steps.before:
        raise ValueError(
            f"{run} was begun with {steps.before:,} steps, and {steps.now:,} extend it: add "
            f"--allow train.steps if that is meant, {others}{_lines(changed)}"
        )
    lacking = [change.name for change in refused]
    if DATA in by_key and not _allowed(DATA, allow):
        lacking = [DATA, *(name for name in lacking if not _allowed(name, [DATA]))]
    flag = " ".join(dict.fromkeys([*allow, *lacking]))
    raise ValueError(
        f"{_begun(run, changed)}; allow {'it' if len(changed) == 1 else 'them'} "
        f"(--allow {flag}), {others}{_lines(changed)}"
    )


def _begun(run: Path, changed: list[Change]) -> str:
    keys = {change.key for change in changed}
    kinds = {"on other data": DATA in keys, "with another recipe": bool(keys - {DATA})}
    what = " and ".join(text for text, differs in kinds.items() if differs)
    count = f"{len(changed)} value{'s differ' if changed[1:] else ' differs'}"
    return f"{run} was begun {what} ({count} from its recipe.toml)"


def _lines(changed: list[Change]) -> str:
    width = max(len(change.key) for change in changed)
    return "".join(f"\n  {change.key:<{width}}   {change}" for change in changed)


def _allowed(key: str, allow: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in allow)


def _part(text: str, start: int) -> str:
    end = start + LONG
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"
