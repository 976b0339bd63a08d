"""The status of a run, read from its folder quickly and in spite of damaged files.

    run.lock        does a process hold it? ────────────▶ running
    events.jsonl    how the last start ended ───────────▶ finished, stopped, failed
    metrics.jsonl   its last lines ─────────────────────▶ step, loss, held-out, tasks
    checkpoints/    the newest whose files have their sizes

A run that was killed cannot log that: it logged a start, nobody holds its lock, and no end is
logged. Logs are read from their end backwards, so that a long one costs nothing.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

from gnano.report.metrics import bits_per_byte, figure, task_figures
from gnano.train.recipe import Recipe, load_recipe
from gnano.train.saving.folders import checkpoints
from gnano.train.saving.hashes import verify_sizes

State = Literal["running", "finished", "stopped", "failed", "unknown"]
ENDS: dict[str, State] = {"finished": "finished", "stopped": "stopped", "failed": "failed"}
KILLED = "killed?"
BLOCK = 2**16  # bytes of a log read at a time
Tasks = dict[str, dict[str, float]]  # name -> acc, error and the like


@dataclass(frozen=True, kw_only=True)
class Standing:
    run: Path
    state: State
    reason: str  # of that state: who runs it, which signal, what failed; "" where there is none
    step: int | None  # the last one in its log; None before the first
    steps: int | None  # in all; None where its recipe cannot be read
    loss: float | None  # the last finite one, nats per token
    heldout: float | None  # the last measured, bits per byte
    tasks: Tasks  # the last measured
    checkpoint: Path | None  # the newest whose files are there with their sizes
    active: float  # when something last happened, in seconds since 1970
    problems: tuple[str, ...]  # what is damaged or cannot be read, a sentence each


def standing(run: Path) -> Standing:
    """Return the run's status; what cannot be read is listed as a problem, not raised."""
    problems: list[str] = []
    recipe = _load_recipe(run, problems)
    last, loss, heldout, tasks = _last_figures(run, recipe, problems)
    state, reason = _state(run, bool(last.get("final")), problems)
    return Standing(
        run=run,
        state=state,
        reason=reason,
        step=last.get("step"),
        steps=recipe.train.steps if recipe else None,
        loss=loss,
        heldout=heldout,
        tasks=tasks,
        checkpoint=_good_checkpoint(run, problems),
        active=_last_activity(run),
        problems=tuple(problems),
    )


def events_backwards(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the run's events, newest first; none where none were logged."""
    path = run / "events.jsonl"
    if path.exists():
        yield from (e for e in objects_backwards(path) if isinstance(e.get("event"), str))


def _load_recipe(run: Path, problems: list[str]) -> Recipe | None:
    try:
        return load_recipe(str(run / "recipe.toml"))
    except (OSError, ValueError) as error:
        problems.append(f"recipe.toml cannot be read: {error}")
        return None


def _last_figures(
    run: Path, recipe: Recipe | None, problems: list[str]
) -> tuple[dict[str, Any], float | None, float | None, Tasks]:
    """Return the log's last row, the last loss, the last held-out loss and the last tasks."""
    path = run / "metrics.jsonl"
    nothing: tuple[dict[str, Any], None, None, Tasks] = {}, None, None, {}
    if not path.exists():
        return nothing
    try:
        rows = (r for r in objects_backwards(path, '"step"') if isinstance(r.get("step"), int))
        last = next(rows, None)
        if last is None:
            if path.stat().st_size:
                problems.append("metrics.jsonl cannot be read: it holds no whole line of a step.")
            return nothing
        loss = _first_known(figure(row.get("loss")) for row in chain([last], rows))
        heldout = _first_known(map(bits_per_byte, _until(last["step"], path, '"heldout"')))
        # in a run that does not measure any, the search would read the whole log
        has_tasks = recipe is None or recipe.train.tasks
        tasks = map(task_figures, _until(last["step"], path, '"tasks"') if has_tasks else ())
        return last, loss, heldout, next(filter(None, tasks), {})
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read: {error}")
        return nothing


def _first_known(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _until(step: int, path: Path, containing: str) -> Iterator[dict[str, Any]]:
    """Yield rows of a log, newest first, without the steps that a rollback to `step` undid."""
    for row in objects_backwards(path, containing):
        if isinstance(row.get("step"), int) and row["step"] <= step:
            yield row


def _state(run: Path, final: bool, problems: list[str]) -> tuple[State, str]:
    from gnano.train.alone import holder

    if (owner := holder(run)) is not None:
        return "running", f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    path = run / "events.jsonl"
    try:
        changes = [e for e in events_backwards(run) if e["event"] in {"started", *ENDS}]
        damaged = not changes and path.exists() and path.stat().st_size > 0
    except OSError as error:
        problems.append(f"events.jsonl cannot be read: {error}")
        return "unknown", ""
    if damaged:
        problems.append("events.jsonl cannot be read: it holds no whole line of a start or an end.")
        return "unknown", ""
    for event, before in zip_longest(changes, changes[1:]):
        if event["event"] == "started":
            break
        # an end without a start before it is a command that was refused and changed nothing
        if before is None or before["event"] == "started":
            return ENDS[event["event"]], str(event.get("signal") or event.get("reason") or "")
    finished = final and not changes  # by a version that logged no events
    return ("finished", "") if finished else ("failed", KILLED)


def _good_checkpoint(run: Path, problems: list[str]) -> Path | None:
    for folder in reversed(checkpoints(run)):
        try:
            verify_sizes(folder)
            return folder
        except (OSError, ValueError) as error:
            if folder.exists():  # else a running process has replaced it by a newer one
                problems.append(str(error))
    return None


def _last_activity(run: Path) -> float:
    last = 0.0
    for name in ("metrics.jsonl", "events.jsonl", "recipe.toml"):
        with suppress(OSError):  # not written yet
            last = max(last, (run / name).stat().st_mtime)
    return last


def objects_backwards(path: Path, containing: str = "") -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a log, newest first, from lines that contain a text.

    Torn lines are skipped. Raises OSError for a file that cannot be read.
    """
    for line in _lines_backwards(path):
        if containing.encode() in line:
            with suppress(ValueError):
                if isinstance(found := json.loads(line), dict):
                    yield found


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line that begins in the block before
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest
