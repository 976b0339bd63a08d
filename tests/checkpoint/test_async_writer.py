"""A save holds nothing up and loses nothing: not when it is slow, not when it fails."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.processes import fingerprint, losses
from tests.small_models import with_train

from gnano.checkpoint import async_writer as saving
from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import checkpoint_step, list_checkpoints, write_checkpoint
from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def plain(recipe: Recipe) -> Recipe:
    return with_train(recipe, steps=30, save_every=10, eval_every=0)


@pytest.fixture(scope="module")
def straight(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to; it keeps every checkpoint."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(with_train(plain, keep_last=9), run)
    return run


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(saving, "STOP_RETRY_SECONDS", 0.3)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_leak_into_it(
    plain: Recipe, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_ahead, write = threading.Event(), write_checkpoint

    def slow(*arguments: Any) -> Path:
        if arguments[1].step == 10:
            assert far_ahead.wait(60), "the training waits for its checkpoint"
        return write(*arguments)

    monkeypatch.setattr(saving, "write_checkpoint", slow)

    def watch(row: dict[str, Any]) -> None:
        if row["step"] == 18:
            far_ahead.set()

    run = tmp_path / "run"
    train(with_train(plain, keep_last=9), run, watch)
    for step in (10, 20, 30):
        name = f"step-{step:08}"
        verify_checksums(run / "checkpoints" / name)
        assert fingerprint(run / "checkpoints" / name) == fingerprint(
            straight / "checkpoints" / name
        )


def test_a_disk_that_goes_and_comes_back_costs_a_warning_and_no_step(
    plain: Recipe, straight: Path, tmp_path: Path
) -> None:
    run, said = tmp_path / "run", list[str]()
    folder, elsewhere = run / "checkpoints", tmp_path / "elsewhere"

    def watch(row: dict[str, Any]) -> None:
        if row["step"] == 15:
            folder.rename(elsewhere)
        if row["step"] == 28:
            assert not folder.exists(), "it was written where the disk was not"
            elsewhere.rename(folder)

    result = train(plain, run, watch, notify=lambda text, waiting=False: said.append(text))
    assert result.is_finished
    assert losses(run) == losses(straight)
    assert [event["step"] for event in events(run, "not saved")] == [20]
    assert any("step 20 could not be saved (" in text for text in said), said
    assert fingerprint(result.checkpoint) == fingerprint(
        straight / "checkpoints" / result.checkpoint.name
    )


def test_no_checkpoint_goes_before_its_successor_was_read_back(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not keep what it was given: each new checkpoint has a byte flipped."""
    run, write, lies = tmp_path / "run", write_checkpoint, list[int]()

    def forgetful(*arguments: Any) -> Path:
        folder = write(*arguments)
        if arguments[1].step == 30 and len(lies) < 3:
            lies.append(arguments[1].step)
            content = bytearray((folder / "model.safetensors").read_bytes())
            content[-1] ^= 1
            (folder / "model.safetensors").write_bytes(content)
            # the last one, which keep = 1 is about to let go
            assert [checkpoint_step(old) for old in list_checkpoints(run)] == [20, 30]
        return folder

    monkeypatch.setattr(saving, "write_checkpoint", forgetful)
    assert train(with_train(plain, keep_last=1), run).is_finished
    assert len(lies) == 3
    assert [checkpoint_step(folder) for folder in list_checkpoints(run)] == [30]
    verify_checksums(list_checkpoints(run)[-1])
    assert "does not match its checksum" in events(run, "not saved")[0]["reason"]


def test_a_stop_with_no_room_says_so_and_leaves_the_last_good_checkpoint(
    plain: Recipe, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    folder, elsewhere = run / "checkpoints", tmp_path / "elsewhere"

    def watch(row: dict[str, Any]) -> None:
        if row["step"] == 25:
            folder.rename(elsewhere)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(OSError, match="No such file"):
        train(plain, run, watch)
    elsewhere.rename(folder)
    assert events(run, "failed")
    result = train(plain, run)
    assert result.start_step == 20 and result.is_finished
    assert losses(run) == losses(straight)


def test_a_disk_too_small_for_one_checkpoint_is_refused_before_anything_is_computed(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(ValueError, match=r"are free in .* a checkpoint takes 0\.000"):
        train(plain, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_mistake_of_ours_in_the_thread_ends_the_run_and_is_not_swallowed(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Path:
        raise TypeError("ours")

    monkeypatch.setattr(saving, "write_checkpoint", broken)
    with pytest.raises(TypeError, match="ours"):
        train(plain, tmp_path / "run")
