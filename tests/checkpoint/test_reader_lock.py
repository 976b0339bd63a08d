"""Retention keeps a checkpoint that a process reads; a removed checkpoint is not returned."""

import shutil
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from tests.checkpoint.fake_checkpoint import make_checkpoints
from tests.ranks import forkserver

from gnano.checkpoint import run_checkpoints
from gnano.checkpoint.run_checkpoints import (
    CHECKSUMS_FILE,
    apply_retention,
    checkpoint_step,
    find_checkpoint,
    list_checkpoints,
)


def read_until(path: Path, found: Path, finished: Event) -> None:
    found.write_text(str(find_checkpoint(path)))
    finished.wait(60)


def steps(run: Path) -> list[int]:
    return [checkpoint_step(folder) for folder in list_checkpoints(run)]


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
