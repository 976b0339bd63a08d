"""Lists the runs in a folder, the last active one first.

    run         state          step          loss   bits/byte  checkpoint  age
    demo        running   1,240/5,000  24%  3.214       1.102       1,000  3 s
    big/second  failed      800/5,000  16%  3.401       1.160         500  2 d
        failed: The loss or its gradient became infinite …

The problems of a run are listed below its row; the other runs are listed in any case.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from gnano.checkpoint.run_checkpoints import checkpoint_step
from gnano.reporting.run_status import PROBABLY_KILLED, RunStatus, read_run_status
from gnano.utils.files import dump_json
from gnano.utils.formatting import format_shell_command, format_table

COLUMN_HEADERS = ("run", "state", "step", "", "loss", "bits/byte", "checkpoint", "age")


def list_runs(folder: Path) -> list[RunStatus]:
    """Return the status of each run in a folder, up to two levels deep, last active first.

    Raises FileNotFoundError if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: name the one that holds your runs, or start a run "
            f"with gnano pretrain."
        )
    found = [folder / "recipe.toml", *folder.glob("*/recipe.toml"), *folder.glob("*/*/recipe.toml")]
    runs = [read_run_status(recipe.parent) for recipe in found if recipe.is_file()]
    return sorted(runs, key=lambda run: (-run.last_active, run.run_dir))


def format_runs_table(folder: Path, runs: Sequence[RunStatus]) -> str:
    """Return the runs as a table for a terminal; a sentence if there are none."""
    if not runs:
        command = format_shell_command("gnano", "pretrain", "RECIPE", "--out", folder / "NAME")
        return f"{folder} holds no run: {command} begins one."
    now = time.time()
    rows = [COLUMN_HEADERS, *(_table_row(folder, run, now) for run in runs)]
    head, *aligned = format_table(rows, left=(0, 1))
    lines = [head]
    for line, run in zip(aligned, runs, strict=True):
        lines += [line, *(f"    {to_printable_line(note)}" for note in _run_notes(run))]
    return "\n".join(lines)


def format_runs_json(folder: Path, runs: Sequence[RunStatus]) -> str:
    """Return one JSON object per line and run."""
    return "\n".join(dump_json(_status_as_dict(folder, run)) for run in runs)


def format_age(seconds: float) -> str:
    """Format an age in one unit: 42 s, 3 min, 2 h, 5 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def to_printable_line(text: str) -> str:
    """Return untrusted text on one line, without characters that control a terminal."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "�" for letter in line)


def _run_name(folder: Path, run: Path) -> str:
    return str(run.relative_to(folder)) if run != folder else run.resolve().name


def _table_row(folder: Path, run: RunStatus, now: float) -> tuple[str, ...]:
    step = "–" if run.step is None else f"{run.step:,}"
    return (
        to_printable_line(_run_name(folder, run.run_dir)),
        f"{run.state}: {PROBABLY_KILLED}" if run.reason == PROBABLY_KILLED else run.state,
        step if run.total_steps is None else f"{step}/{run.total_steps:,}",
        # rounded down: only a complete run shows 100%
        f"{100 * run.step // run.total_steps}%" if run.step is not None and run.total_steps else "",
        "–" if run.loss is None else f"{run.loss:.3f}",
        "–" if run.heldout_bits_per_byte is None else f"{run.heldout_bits_per_byte:.3f}",
        "–" if run.checkpoint is None else f"{checkpoint_step(run.checkpoint):,}",
        format_age(now - run.last_active),
    )


def _run_notes(run: RunStatus) -> list[str]:
    failed = run.state == "failed" and run.reason != PROBABLY_KILLED
    return [*([f"failed: {run.reason}"] if failed and run.reason else []), *run.problems]


def _status_as_dict(folder: Path, run: RunStatus) -> dict[str, object]:
    return {
        "name": _run_name(folder, run.run_dir),
        "folder": str(run.run_dir),
        "state": run.state,
        "reason": run.reason,
        "step": run.step,
        "steps": run.total_steps,
        "loss": run.loss,
        "bits_per_byte": run.heldout_bits_per_byte,
        "tasks": run.tasks,
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "active": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.last_active)),
        "problems": list(run.problems),
    }
