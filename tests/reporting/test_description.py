"""The description of a run shows its state, its best checkpoint and its problems."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gnano.reporting.description import describe


@pytest.fixture
def run(trained_copy: Path) -> Path:
    return trained_copy


def lines(run: Path, prefix: str) -> list[str]:
    return [line for line in describe(str(run)).splitlines() if line.startswith(prefix)]


def append(file: Path, **values: object) -> None:
    with file.open("a") as log:
        log.write(json.dumps(values) + "\n")


def test_a_run_shows_its_state_and_last_events(run: Path) -> None:
    assert "finished: step 6 of 6, loss " in lines(run, "run")[0]
    assert "bits per byte at step 6 (left " in lines(run, "held-out")[0]
    assert lines(run, "trouble") == ["trouble      0 steps skipped, 0 rollbacks"]
    events = lines(run, "event")
    assert 0 < len(events) <= 5 and "finished, step 6" in events[-1]


def test_the_last_accuracy_of_each_task_is_shown(run: Path) -> None:
    assert not lines(run, "tasks")
    older = {"piqa": {"items": 500, "acc": 0.5, "error": 0.02}}
    latest = {
        "hellaswag": {"items": 500, "acc": 0.262, "acc_norm": 0.284, "error": 0.0201},
        "lambada": {"items": 500, "acc": 0.1, "error": 0.0134},
        "mine": {"items": 9, "acc": 1.0},
        "torn\x1b[2J": {"items": 9, "acc": 0.25},
    }
    append(run / "metrics.jsonl", step=4, tasks=older)
    append(run / "metrics.jsonl", step=6, final=True, tasks=latest)
    assert lines(run, "tasks") == [
        "tasks        hellaswag 0.284 ± 0.020 · lambada 0.100 ± 0.013 · mine 1.000"
        " · torn�[2J 0.250 (step 6)"
    ]


def test_damaged_tasks_are_ignored(run: Path, damaged: object) -> None:
    before = describe(str(run))
    append(run / "metrics.jsonl", step=6, final=True, tasks=damaged)
    assert describe(str(run)) == before


def test_damaged_values_of_a_source_are_ignored(run: Path) -> None:
    heldout = {"bits_per_byte": 1.5, "sources": {"left": "?", "right": 1.25}}
    append(run / "metrics.jsonl", step=6, final=True, heldout=heldout)
    assert lines(run, "held-out") == ["held-out     1.500 bits per byte at step 6 (right 1.250)"]


def test_the_best_checkpoint_is_the_intact_one_with_the_lowest_heldout_loss(run: Path) -> None:
    """Only of those measured on the same text; the final evaluation uses another."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    bits = {r["step"]: r["heldout"]["bits_per_byte"] for r in rows if "heldout" in r}
    better, worse = sorted((2, 4), key=lambda step: bits[step])
    checkpoints = lines(run, "checkpoint")
    [best] = [line for line in checkpoints if "   best" in line]
    assert best.endswith(f"step-{better:08}   best: {bits[better]:.3f} bits per byte")
    os.truncate(run / "checkpoints" / f"step-{better:08}" / "model.safetensors", 9)
    checkpoints = lines(run, "checkpoint")
    [best] = [line for line in checkpoints if "   best" in line]
    assert f"step-{worse:08}   best" in best
    assert sum("damaged" in line and f"step-{better:08}" in line for line in checkpoints) == 1


def test_skipped_steps_and_rollbacks_are_counted(run: Path) -> None:
    for step in (7, 8):
        append(run / "metrics.jsonl", step=step, loss=None, seconds=1.0, skipped=True)
    append(run / "events.jsonl", time="2026-11-25T00:15:06Z", event="rolled back", step=8, to=6)
    assert lines(run, "trouble") == ["trouble      2 steps skipped, 1 rollback"]
    assert lines(run, "event")[-1].endswith("2026-11-25T00:15:06Z rolled back, step 8: to 6")


def test_a_run_before_its_first_step_is_described(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    (run / "events.jsonl").unlink()
    assert lines(run, "run") == ["run          failed: step 0 of 6"]
    assert "killed?" in describe(str(run))
    assert lines(run, "checkpoint") == ["checkpoint   none yet"] and not lines(run, "event")


def test_the_reason_of_a_failure_is_shown(run: Path) -> None:
    append(run / "events.jsonl", time="2026-11-25T00:15:06Z", event="started", step=6)
    append(run / "events.jsonl", time="2026-11-25T00:15:09Z", event="failed", reason="No space.")
    text = describe(str(run))
    assert "run          failed: step 6 of 6" in text and "\n             No space.\n" in text
