"""Retention keeps the newest, every n-th and the best checkpoint, and those that are read."""

import json
import shutil
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ranks import forkserver

from gnano.checkpoint import run_checkpoints
from gnano.checkpoint.run_checkpoints import (
    CHECKSUMS_FILE,
    apply_retention,
    best_checkpoint,
    checkpoint_step,
    find_checkpoint,
    list_checkpoints,
    quarantine,
    remove_partial,
)


def make_checkpoints(run: Path, losses: Mapping[int, float | None]) -> None:
    """Create a checkpoint of each step, with its held-out loss."""
    for step, loss in losses.items():
        trainer = run / "checkpoints" / f"step-{step:08}" / "trainer"
        trainer.mkdir(parents=True, exist_ok=True)
        state = {"step": step, "heldout": loss}
        (trainer / "state.json").write_text(json.dumps(state))


def steps(run: Path) -> list[int]:
    return [checkpoint_step(folder) for folder in list_checkpoints(run)]


def test_the_newest_every_nth_and_the_best_are_kept(tmp_path: Path) -> None:
    losses = {500: 3.0, 1000: 2.5, 1500: 2.0, 2000: 2.1, 2500: 2.2, 3000: None}
    make_checkpoints(tmp_path, losses)
    apply_retention(tmp_path, keep_last=2, keep_every=1000)
    assert steps(tmp_path) == [1000, 1500, 2000, 2500, 3000]
    apply_retention(tmp_path, keep_last=2)
    assert steps(tmp_path) == [1500, 2500, 3000]
    apply_retention(tmp_path, keep_last=1, keep_best=False)
    assert steps(tmp_path) == [3000]


@settings(deadline=None, max_examples=30)  # a busy disk is not a failure
@given(
    st.dictionaries(st.integers(0, 30), st.none() | st.floats(0.1, 9), min_size=1),
    st.integers(1, 4),
    st.integers(0, 7),
    st.booleans(),
)
def test_any_settings_keep_the_newest_and_are_idempotent(
    losses: dict[int, float | None], keep: int, every: int, best: bool
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        make_checkpoints(run, losses)
        before = steps(run)
        apply_retention(run, keep, every, best)
        after = steps(run)
        assert after[-min(keep, len(before)) :] == before[-keep:]
        assert set(after) <= set(before)
        measured = {step: loss for step, loss in losses.items() if loss is not None}
        if best and measured:
            assert any(losses[step] == min(measured.values()) for step in after)
        apply_retention(run, keep, every, best)
        assert steps(run) == after


def test_partial_folders_do_not_count_and_are_removed(
    tmp_path: Path,
) -> None:
    make_checkpoints(tmp_path, {10: None, 20: None})
    folder = tmp_path / "checkpoints"
    for partial in (".step-00000030.partial", ".step-00000005.old"):
        (folder / partial / "trainer").mkdir(parents=True)
    (folder / "step-00000099.old").mkdir()  # not a name of a checkpoint: left untouched
    apply_retention(tmp_path, keep_last=2)
    assert steps(tmp_path) == [10, 20]
    remove_partial(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [
        "step-00000010",
        "step-00000020",
        "step-00000099.old",
    ]


def test_several_damaged_checkpoints_of_a_step_are_quarantined(tmp_path: Path) -> None:
    for _ in range(3):
        make_checkpoints(tmp_path, {10: None})
        quarantine(list_checkpoints(tmp_path)[0])
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "damaged-step-00000010",
        "damaged-step-00000010-2",
        "damaged-step-00000010-3",
    ]


def test_the_best_has_the_lowest_loss_and_an_unreadable_state_has_none(
    tmp_path: Path,
) -> None:
    make_checkpoints(tmp_path, {10: 2.0, 20: 1.0, 30: 3.0})
    found = list_checkpoints(tmp_path)
    assert best_checkpoint(found) == found[1]
    (found[1] / "trainer" / "state.json").write_text(json.dumps({"heldout": 1.0})[:-3])
    assert best_checkpoint(found) == found[0]


def read_until(path: Path, found: Path, finished: Event) -> None:
    found.write_text(str(find_checkpoint(path)))
    finished.wait(60)


def add_checkpoint(run: Path, step: int) -> None:
    make_checkpoints(run, {step: None})
    (run / "checkpoints" / f"step-{step:08}" / CHECKSUMS_FILE).write_text("{}")


@pytest.mark.slow
@pytest.mark.parametrize("given", ["run", "checkpoint"])
def test_retention_keeps_what_another_process_reads_until_it_ends(
    tmp_path: Path, given: str
) -> None:
    run, found = tmp_path / "run", tmp_path / "found"
    add_checkpoint(run, 10)
    first = list_checkpoints(run)[0]
    (first / "config.json").write_text("{}")
    finished = forkserver.Event()
    arguments = (run if given == "run" else first, found, finished)
    reader = forkserver.Process(target=read_until, args=arguments, daemon=True)
    reader.start()
    while not (found.exists() and found.read_text()):
        assert reader.is_alive()
        time.sleep(0.01)
    assert found.read_text() == str(first)
    for step in (20, 30):
        add_checkpoint(run, step)
        apply_retention(run, keep_last=1)
    assert steps(run) == [10, 30]
    finished.set()
    reader.join(60)
    apply_retention(run, keep_last=1)
    assert steps(run) == [30]


def test_a_checkpoint_removed_during_the_search_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_checkpoint(tmp_path, 10)
    add_checkpoint(tmp_path, 20)
    removed, newest = list_checkpoints(tmp_path)
    shutil.rmtree(removed)
    listings = [[removed], [newest]]
    monkeypatch.setattr(run_checkpoints, "list_checkpoints", lambda run: listings.pop(0))
    assert find_checkpoint(tmp_path) == newest and not listings
