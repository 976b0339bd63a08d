"""What is said of a run: where it stands, what is best, what went wrong."""

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.small import with_train

from gnano.report import describe
from gnano.train import Recipe, train


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=6, save_every=2, eval_every=2, keep=9, keep_best=False), run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def lines(run: Path, begin: str) -> list[str]:
    return [line for line in describe(str(run)).splitlines() if line.startswith(begin)]


def append(file: Path, **values: object) -> None:
    with file.open("a") as log:
        log.write(json.dumps(values) + "\n")


def test_a_run_says_where_it_stands_and_what_happened_last(run: Path) -> None:
    assert "finished: step 6 of 6, loss " in lines(run, "run")[0]
    assert "bits per byte at step 6 (left " in lines(run, "held-out")[0]
    assert lines(run, "trouble") == ["trouble      0 steps skipped, 0 rollbacks"]
    events = lines(run, "event")
    assert 0 < len(events) <= 5 and "finished, step 6" in events[-1]


def test_the_best_checkpoint_is_the_whole_one_with_the_lowest_heldout_loss(run: Path) -> None:
    """Of those that were measured on the same text; at the end it is another."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    bits = {r["step"]: r["heldout"]["bits_per_byte"] for r in rows if "heldout" in r}
    better, worse = sorted((2, 4), key=lambda step: bits[step])
    said = lines(run, "checkpoint")
    [best] = [line for line in said if "   best" in line]
    assert best.endswith(f"step-{better:08}   best: {bits[better]:.3f} bits per byte")
    os.truncate(run / "checkpoints" / f"step-{better:08}" / "model.safetensors", 9)
    said = lines(run, "checkpoint")
    [best] = [line for line in said if "   best" in line]
    assert f"step-{worse:08}   best" in best
    assert sum("damaged" in line and f"step-{better:08}" in line for line in said) == 1


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


def test_the_reason_of_a_failure_is_told(run: Path) -> None:
    append(run / "events.jsonl", time="2026-11-25T00:15:06Z", event="started", step=6)
    append(run / "events.jsonl", time="2026-11-25T00:15:09Z", event="failed", reason="No space.")
    text = describe(str(run))
    assert "run          failed: step 6 of 6" in text and "\n             No space.\n" in text
