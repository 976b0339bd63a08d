"""Reads the status of runs from their folders, quickly and in spite of damaged files; lists them.

    run.lock        held by a process ──────────────────▶ running
    events.jsonl    how the last start ended ───────────▶ finished, stopped, failed
    metrics.jsonl   its last lines ─────────────────────▶ step, loss, held-out, tasks
    checkpoints/    the newest whose files have their sizes

    run         state          step          loss   bits/byte  checkpoint  age
    demo        running   1,240/5,000  24%  3.214       1.102       1,000  3 s
    big/second  failed      800/5,000  16%  3.401       1.160         500  2 d
        failed: The loss or its gradient became infinite …

A killed run logs no end: it logged a start, and no process holds its lock. Logs are read backwards
from their end, so the time does not depend on their length. In the list, the run that was active
last comes first; the problems of a run are below its row.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from gnano.checkpoint.run_checkpoints import checkpoint_step, list_checkpoints, verify_file_sizes
from gnano.config.recipe import load_recipe
from gnano.reporting.plots import finite_number, heldout_bits_per_byte, task_metrics
from gnano.utils.files import dump_json
from gnano.utils.formatting import format_shell_command, format_table

RunState = Literal["running", "finished", "stopped", "failed", "unknown"]
END_STATES = ("finished", "stopped", "failed")  # the events that end a start
PROBABLY_KILLED = "killed?"
LOG_BLOCK_BYTES = 2**16  # bytes of a log read at a time
COLUMN_HEADERS = ("run", "state", "step", "", "loss", "bits/byte", "checkpoint", "age")


@dataclass(kw_only=True)
class RunStatus:
    """State, progress and problems of a run, as far as its files can be read."""

    folder: Path
    state: RunState = "unknown"
    reason: str = ""  # of the state: process, signal or error; "" where there is none
    step: int | None = None  # the last one in the log; None before the first
    steps: int | None = None  # of the complete run; None where the recipe cannot be read
    loss: float | None = None  # the last finite one, nats per token
    bits_per_byte: float | None = None  # of held-out text, the last measured
    tasks: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # the last acc, error … by name
    checkpoint: Path | None = None  # the newest whose files have their sizes
    active: float = 0.0  # time of the last change, in seconds since 1970
    problems: list[str] = field(
        default_factory=list
    )  # damaged or unreadable files, a sentence each


def read_run_status(run: Path) -> RunStatus:
    """Return the run's status; unreadable files become problems instead of errors."""
    status, has_tasks, has_final_row = RunStatus(folder=run), True, False
    try:
        train = load_recipe(str(run / "recipe.toml")).train
        status.steps, has_tasks = train.steps, bool(train.eval_tasks)
    except (OSError, ValueError) as error:
        status.problems.append(f"recipe.toml cannot be read: {error}")
    try:
        has_final_row = _read_last_metrics(status, has_tasks)
    except OSError as error:
        status.problems.append(f"metrics.jsonl cannot be read: {error}")
    status.state, status.reason = _read_state(run, has_final_row, status.problems)
    for folder in reversed(list_checkpoints(run)):
        try:
            verify_file_sizes(folder)
            status.checkpoint = folder
            break
        except (OSError, ValueError) as error:
            if folder.exists():  # else a running process has replaced it by a newer one
                status.problems.append(str(error))
    for name in ("metrics.jsonl", "events.jsonl", "recipe.toml"):
        with suppress(OSError):  # not written yet
            status.active = max(status.active, (run / name).stat().st_mtime)
    return status


def _read_last_metrics(status: RunStatus, has_tasks: bool) -> bool:
    """Set the log's last step and the last known values; return whether the log is complete."""
    path = status.folder / "metrics.jsonl"
    if not path.exists():
        return False
    rows = iter_json_objects_reversed(path, '"step"')
    last = next((row for row in rows if isinstance(row.get("step"), int)), None)
    if last is None:
        if path.stat().st_size:
            problem = "metrics.jsonl cannot be read: it holds no complete row of a step."
            status.problems.append(problem)
        return False

    def last_value(key: str, read: Callable[[dict[str, Any]], Any]) -> Any:
        rows = iter_json_objects_reversed(path, f'"{key}"')
        # a rollback to the last step has undone the later ones
        known = (row for row in rows if isinstance(s := row.get("step"), int) and s <= last["step"])
        return next((value for row in known if (value := read(row)) is not None), None)

    status.step = last["step"]
    status.loss = last_value("loss", lambda row: finite_number(row.get("loss")))
    status.bits_per_byte = last_value("heldout", lambda row: heldout_bits_per_byte(row)[0])
    if has_tasks:  # in a run without tasks the search would read the complete log
        status.tasks = last_value("tasks", lambda row: task_metrics(row) or None) or {}
    return bool(last.get("final"))


def _read_state(run: Path, has_final_row: bool, problems: list[str]) -> tuple[RunState, str]:
    from gnano.train.run_dir import current_owner

    if (owner := current_owner(run)) is not None:
        return "running", f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    path = run / "events.jsonl"
    try:
        changes = [e for e in iter_events_reversed(run) if e["event"] in ("started", *END_STATES)]
        damaged = not changes and path.exists() and path.stat().st_size > 0
        problem = "it holds no complete start or end." if damaged else ""
    except OSError as error:
        problem = str(error)
    if problem:
        problems.append(f"events.jsonl cannot be read: {problem}")
        return "unknown", ""
    for event, before in zip_longest(changes, changes[1:]):
        if event["event"] == "started":
            break
        # an end without a start before it is a refused command, which changed nothing
        if before is None or before["event"] == "started":
            return event["event"], str(event.get("signal") or event.get("reason") or "")
    finished = has_final_row and not changes  # a version that logged no events
    return ("finished", "") if finished else ("failed", PROBABLY_KILLED)


def iter_events_reversed(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the run's events, newest first."""
    path = run / "events.jsonl"
    if path.exists():
        yield from (e for e in iter_json_objects_reversed(path) if isinstance(e.get("event"), str))


def iter_json_objects_reversed(path: Path, containing: str = "") -> Iterator[dict[str, Any]]:
    """Yield the JSON objects on lines that contain a text, newest first; skip torn lines."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line that starts in the block before
        while end > 0:
            start = max(0, end - LOG_BLOCK_BYTES)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            for line in reversed(lines if start else [rest, *lines]):
                if containing.encode() in line:
                    with suppress(ValueError):
                        if isinstance(found := json.loads(line), dict):
                            yield found
            end = start


def find_runs(folder: Path) -> dict[str, Path]:
    """Return the runs in a folder by name, up to two levels deep; none without a folder."""
    found = [folder / "recipe.toml", *folder.glob("*/recipe.toml"), *folder.glob("*/*/recipe.toml")]
    return {run_name(folder, one.parent): one.parent for one in found if one.is_file()}


def list_runs(folder: Path) -> list[RunStatus]:
    """Return the status of each run in a folder, last active first.

    Raises FileNotFoundError if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: name the one that holds your runs, or start a run "
            f"with gnano pretrain."
        )
    runs = [read_run_status(run) for run in find_runs(folder).values()]
    return sorted(runs, key=lambda run: (-run.active, run.folder))


def format_runs_table(folder: Path, runs: Sequence[RunStatus]) -> str:
    """Return the runs as a table for a terminal; a sentence if there are none."""
    if not runs:
        command = format_shell_command("gnano", "pretrain", "RECIPE", "--out", folder / "NAME")
        return f"{folder} holds no run: {command} begins one."
    now = time.time()
    rows = [COLUMN_HEADERS]
    for run in runs:
        is_killed = run.reason == PROBABLY_KILLED
        step, total = run.step, run.steps
        progress = _format_known(step, ",") + ("" if total is None else f"/{total:,}")
        # rounded down: only a complete run shows 100%
        percent = f"{100 * step // total}%" if step is not None and total else ""
        rows.append(
            (
                to_printable_line(run_name(folder, run.folder)),
                f"{run.state}: {PROBABLY_KILLED}" if is_killed else run.state,
                progress,
                percent,
                _format_known(run.loss, ".3f"),
                _format_known(run.bits_per_byte, ".3f"),
                "–" if run.checkpoint is None else f"{checkpoint_step(run.checkpoint):,}",
                format_age(now - run.active),
            )
        )
    head, *aligned = format_table(rows, left=(0, 1))
    lines = [head]
    for line, run in zip(aligned, runs, strict=True):
        has_reason = run.state == "failed" and run.reason not in ("", PROBABLY_KILLED)
        notes = [f"failed: {run.reason}"] * has_reason + run.problems
        lines += [line, *(f"    {to_printable_line(note)}" for note in notes)]
    return "\n".join(lines)


def format_runs_json(folder: Path, runs: Sequence[RunStatus]) -> str:
    """Return one JSON object per line and run."""
    lines = []
    for run in runs:
        active = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.active))
        values = {"name": run_name(folder, run.folder), **vars(run), "active": active}
        lines.append(dump_json(values, default=str))
    return "\n".join(lines)


def run_name(folder: Path, run: Path) -> str:
    """Return the path of a run in the folder that was listed."""
    return str(run.relative_to(folder)) if run != folder else run.resolve().name


def _format_known(value: float | None, spec: str) -> str:
    return "–" if value is None else f"{value:{spec}}"


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
