"""Where does a run stand? What its folder says, read in no time and whatever is damaged.

    run.lock        does a process hold it? ────────────▶ running
    events.jsonl    how the last start ended ───────────▶ finished, stopped, failed
    metrics.jsonl   its last lines ─────────────────────▶ step, loss, held-out, tasks
    checkpoints/    the newest whose files have their sizes

A run that was killed cannot write that it was: it says that it started, nobody holds its lock,
and no end is written.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

from gnano.report.figures import bits_per_byte, figure, task_figures
from gnano.report.lines import objects_backwards
from gnano.train import Recipe, checkpoints, load_recipe, verify_sizes

State = Literal["running", "finished", "stopped", "failed", "unknown"]
ENDS: dict[str, State] = {"finished": "finished", "stopped": "stopped", "failed": "failed"}
KILLED = "killed?"
Tasks = dict[str, dict[str, float]]  # of each by name: acc, error and the like


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
    """Where the run stands; what cannot be read is a problem of it, not an error."""
    problems: list[str] = []
    recipe = _recipe(run, problems)
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
        active=_active(run),
        problems=tuple(problems),
    )


def events_backwards(run: Path) -> Iterator[dict[str, Any]]:
    """What happened to the run, newest first; nothing where nothing was written."""
    path = run / "events.jsonl"
    if path.exists():
        yield from (e for e in objects_backwards(path) if isinstance(e.get("event"), str))


def _recipe(run: Path, problems: list[str]) -> Recipe | None:
    try:
        return load_recipe(str(run / "recipe.toml"))
    except (OSError, ValueError) as error:
        problems.append(f"recipe.toml cannot be read: {error}")
        return None


def _last_figures(
    run: Path, recipe: Recipe | None, problems: list[str]
) -> tuple[dict[str, Any], float | None, float | None, Tasks]:
    """The last line of the log, the last loss, the last held-out loss and the last tasks."""
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
        losses = (figure(row.get("loss")) for row in chain([last], rows))
        loss = next((found for found in losses if found is not None), None)
        bits = (bits_per_byte(row) for row in _until(last["step"], path, '"heldout"'))
        heldout = next((found for found in bits if found is not None), None)
        # where none were asked, the search would go through the whole log
        asked = recipe is None or recipe.train.tasks
        measured = map(task_figures, _until(last["step"], path, '"tasks"') if asked else ())
        return last, loss, heldout, next(filter(None, measured), {})
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read: {error}")
        return nothing


def _until(step: int, path: Path, holding: str) -> Iterator[dict[str, Any]]:
    """Lines of a log, newest first, without those from before the run went back to this step."""
    for row in objects_backwards(path, holding):
        if isinstance(row.get("step"), int) and row["step"] <= step:
            yield row


def _state(run: Path, final: bool, problems: list[str]) -> tuple[State, str]:
    from gnano.train import holder

    if (by := holder(run)) is not None:
        return "running", f"process {by.get('pid', '?')} on {by.get('host', '?')}"
    path = run / "events.jsonl"
    try:
        turns = [e for e in events_backwards(run) if e["event"] in {"started", *ENDS}]
        damaged = not turns and path.exists() and path.stat().st_size > 0
    except OSError as error:
        problems.append(f"events.jsonl cannot be read: {error}")
        return "unknown", ""
    if damaged:
        problems.append("events.jsonl cannot be read: it holds no whole line of a start or an end.")
        return "unknown", ""
    for turn, before in pairwise([*turns, None]):
        assert turn is not None
        if turn["event"] == "started":
            break
        # an end that no start stands before is a command that was refused: all is as it was
        if before is None or before["event"] == "started":
            return ENDS[turn["event"]], str(turn.get("signal") or turn.get("reason") or "")
    finished = final and not turns  # written before there were events
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


def _active(run: Path) -> float:
    last = 0.0
    for name in ("metrics.jsonl", "events.jsonl", "recipe.toml"):
        with suppress(OSError):  # not there yet
            last = max(last, (run / name).stat().st_mtime)
    return last
