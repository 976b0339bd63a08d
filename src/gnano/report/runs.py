"""A table of the runs below a folder, the last active one first.

    run         state          step          loss   bits/byte  checkpoint  age
    demo        running   1,240/5,000  24%  3.214       1.102       1,000  3 s
    big/second  failed      800/5,000  16%  3.401       1.160         500  2 d
        failed: The loss or its gradient became infinite …

The problems of a run are listed below its row; they keep no other run from being listed.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from gnano.report.standing import KILLED, Standing, standing
from gnano.report.tables import align_columns
from gnano.train.saving.folders import step_of
from gnano.utils.json_text import json_text
from gnano.utils.shell import shell_command

HEADS = ("run", "state", "step", "", "loss", "bits/byte", "checkpoint", "age")


def list_runs(folder: Path) -> list[Standing]:
    """Return the status of each run in a folder or in its folders, the latest activity first.

    Raises FileNotFoundError if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: name the one that holds your runs, or begin a run "
            f"with gnano pretrain."
        )
    found = [folder / "recipe.toml", *folder.glob("*/recipe.toml"), *folder.glob("*/*/recipe.toml")]
    runs = [standing(recipe.parent) for recipe in found if recipe.is_file()]
    return sorted(runs, key=lambda run: (-run.active, run.run))


def runs_table(folder: Path, runs: Sequence[Standing]) -> str:
    """Return the runs as a table for a terminal; a sentence if there are none."""
    if not runs:
        begin = shell_command("gnano", "pretrain", "RECIPE", "--out", folder / "NAME")
        return f"{folder} holds no run: {begin} begins one."
    now = time.time()
    rows = [HEADS, *(_row(folder, run, now) for run in runs)]
    head, *aligned = align_columns(rows, right=range(2, len(HEADS)))
    lines = [head]
    for line, run in zip(aligned, runs, strict=True):
        lines += [line, *(f"    {printable(note)}" for note in _notes(run))]
    return "\n".join(lines)


def runs_json(folder: Path, runs: Sequence[Standing]) -> str:
    """Return the runs for a program: one JSON object a line."""
    return "\n".join(json_text(_as_dict(folder, run)) for run in runs)


def age(seconds: float) -> str:
    """Format an age in one unit: 42 s, 3 min, 2 h, 5 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def printable(text: str) -> str:
    """Return text from outside on one line, without characters that control a terminal."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "�" for letter in words)


def _name(folder: Path, run: Path) -> str:
    return str(run.relative_to(folder)) if run != folder else run.resolve().name


def _row(folder: Path, run: Standing, now: float) -> tuple[str, ...]:
    step = "–" if run.step is None else f"{run.step:,}"
    return (
        printable(_name(folder, run.run)),
        f"{run.state}: {KILLED}" if run.reason == KILLED else run.state,
        step if run.steps is None else f"{step}/{run.steps:,}",
        # rounded down: only a complete run shows 100%
        f"{100 * run.step // run.steps}%" if run.step is not None and run.steps else "",
        "–" if run.loss is None else f"{run.loss:.3f}",
        "–" if run.heldout is None else f"{run.heldout:.3f}",
        "–" if run.checkpoint is None else f"{step_of(run.checkpoint):,}",
        age(now - run.active),
    )


def _notes(run: Standing) -> list[str]:
    failed = run.state == "failed" and run.reason != KILLED
    return [*([f"failed: {run.reason}"] if failed and run.reason else []), *run.problems]


def _as_dict(folder: Path, run: Standing) -> dict[str, object]:
    return {
        "name": _name(folder, run.run),
        "folder": str(run.run),
        "state": run.state,
        "reason": run.reason,
        "step": run.step,
        "steps": run.steps,
        "loss": run.loss,
        "bits_per_byte": run.heldout,
        "tasks": run.tasks,
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "active": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.active)),
        "problems": list(run.problems),
    }
