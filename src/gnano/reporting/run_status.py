"""Reads the status of a run from its folder, quickly and in spite of damaged files.

    run.lock        held by a process ──────────────────▶ running
    events.jsonl    how the last start ended ───────────▶ finished, stopped, failed
    metrics.jsonl   its last lines ─────────────────────▶ step, loss, held-out, tasks
    checkpoints/    the newest whose files have their sizes

A killed run logs no end: it logged a start, and no process holds its lock. Logs are read backwards
from their end, so the time does not depend on their length.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

from gnano.checkpoint.run_checkpoints import list_checkpoints, verify_file_sizes
from gnano.config.recipe import Recipe, load_recipe
from gnano.reporting.run_metrics import finite_number, heldout_bits_per_byte, task_metrics

RunState = Literal["running", "finished", "stopped", "failed", "unknown"]
END_EVENT_STATES: dict[str, RunState] = {
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
PROBABLY_KILLED = "killed?"
LOG_BLOCK_BYTES = 2**16  # bytes of a log read at a time
TaskMetrics = dict[str, dict[str, float]]  # name -> acc, error and the like


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State, progress and problems of a run."""

    run_dir: Path
    state: RunState
    reason: str  # of the state: process, signal or error; "" where there is none
    step: int | None  # the last one in the log; None before the first
    total_steps: int | None  # None where the recipe cannot be read
    loss: float | None  # the last finite one, nats per token
    heldout_bits_per_byte: float | None  # the last measured
    tasks: TaskMetrics  # the last evaluated
    checkpoint: Path | None  # the newest whose files have their sizes
    last_active: float  # time of the last change, in seconds since 1970
    problems: tuple[str, ...]  # what is damaged or cannot be read, a sentence each


def read_run_status(run: Path) -> RunStatus:
    """Return the run's status; unreadable files become problems instead of errors."""
    problems: list[str] = []
    recipe = _try_load_recipe(run, problems)
    last, loss, heldout, tasks = _read_last_metrics(run, recipe, problems)
    state, reason = _read_state(run, bool(last.get("final")), problems)
    return RunStatus(
        run_dir=run,
        state=state,
        reason=reason,
        step=last.get("step"),
        total_steps=recipe.train.steps if recipe else None,
        loss=loss,
        heldout_bits_per_byte=heldout,
        tasks=tasks,
        checkpoint=_latest_valid_checkpoint(run, problems),
        last_active=_read_last_activity(run),
        problems=tuple(problems),
    )


def iter_events_reversed(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the run's events, newest first."""
    path = run / "events.jsonl"
    if path.exists():
        yield from (e for e in iter_json_objects_reversed(path) if isinstance(e.get("event"), str))


def _try_load_recipe(run: Path, problems: list[str]) -> Recipe | None:
    try:
        return load_recipe(str(run / "recipe.toml"))
    except (OSError, ValueError) as error:
        problems.append(f"recipe.toml cannot be read: {error}")
        return None


def _read_last_metrics(
    run: Path, recipe: Recipe | None, problems: list[str]
) -> tuple[dict[str, Any], float | None, float | None, TaskMetrics]:
    """Return the log's last row, the last loss, the last held-out loss and the last tasks."""
    path = run / "metrics.jsonl"
    nothing: tuple[dict[str, Any], None, None, TaskMetrics] = {}, None, None, {}
    if not path.exists():
        return nothing
    try:
        rows = (
            r for r in iter_json_objects_reversed(path, '"step"') if isinstance(r.get("step"), int)
        )
        last = next(rows, None)
        if last is None:
            if path.stat().st_size:
                problems.append("metrics.jsonl cannot be read: it holds no complete row of a step.")
            return nothing
        loss = _first_known(finite_number(row.get("loss")) for row in chain([last], rows))
        heldout = _first_known(
            map(heldout_bits_per_byte, _iter_rows_until(last["step"], path, '"heldout"'))
        )
        # in a run without tasks the search would read the complete log
        has_tasks = recipe is None or recipe.train.eval_tasks
        tasks = map(
            task_metrics, _iter_rows_until(last["step"], path, '"tasks"') if has_tasks else ()
        )
        return last, loss, heldout, next(filter(None, tasks), {})
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read: {error}")
        return nothing


def _first_known(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _iter_rows_until(step: int, path: Path, containing: str) -> Iterator[dict[str, Any]]:
    """Yield rows of a log, newest first, without the steps that a rollback to `step` undid."""
    for row in iter_json_objects_reversed(path, containing):
        if isinstance(row.get("step"), int) and row["step"] <= step:
            yield row


def _read_state(run: Path, has_final_row: bool, problems: list[str]) -> tuple[RunState, str]:
    from gnano.train.run_dir import current_owner

    if (owner := current_owner(run)) is not None:
        return "running", f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    path = run / "events.jsonl"
    try:
        changes = [
            e for e in iter_events_reversed(run) if e["event"] in {"started", *END_EVENT_STATES}
        ]
        damaged = not changes and path.exists() and path.stat().st_size > 0
    except OSError as error:
        problems.append(f"events.jsonl cannot be read: {error}")
        return "unknown", ""
    if damaged:
        problems.append("events.jsonl cannot be read: it holds no complete start or end.")
        return "unknown", ""
    for event, before in zip_longest(changes, changes[1:]):
        if event["event"] == "started":
            break
        # an end without a start before it is a refused command, which changed nothing
        if before is None or before["event"] == "started":
            return END_EVENT_STATES[event["event"]], str(
                event.get("signal") or event.get("reason") or ""
            )
    finished = has_final_row and not changes  # a version that logged no events
    return ("finished", "") if finished else ("failed", PROBABLY_KILLED)


def _latest_valid_checkpoint(run: Path, problems: list[str]) -> Path | None:
    for folder in reversed(list_checkpoints(run)):
        try:
            verify_file_sizes(folder)
            return folder
        except (OSError, ValueError) as error:
            if folder.exists():  # else a running process has replaced it by a newer one
                problems.append(str(error))
    return None


def _read_last_activity(run: Path) -> float:
    last = 0.0
    for name in ("metrics.jsonl", "events.jsonl", "recipe.toml"):
        with suppress(OSError):  # not written yet
            last = max(last, (run / name).stat().st_mtime)
    return last


def iter_json_objects_reversed(path: Path, containing: str = "") -> Iterator[dict[str, Any]]:
    """Yield the JSON objects on lines that contain a text, newest first; skip torn lines."""
    for line in _iter_lines_reversed(path):
        if containing.encode() in line:
            with suppress(ValueError):
                if isinstance(found := json.loads(line), dict):
                    yield found


def _iter_lines_reversed(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line that starts in the block before
        while end > 0:
            start = max(0, end - LOG_BLOCK_BYTES)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest
