"""A slow or failed save neither delays the training nor loses a checkpoint."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.processes import fingerprint, losses
from tests.small_models import with_train

from gnano.checkpoint import async_writer
from gnano.checkpoint.format import write_checkpoint
from gnano.checkpoint.run_checkpoints import checkpoint_step, list_checkpoints, verify_checksums
from gnano.config.recipe import Recipe
from gnano.train.trainer import train
from gnano.utils.stop_request import CHECKPOINT_THREAD_NAME

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(recipe: Recipe) -> Recipe:
    return with_train(recipe, steps=30, save_every=10, eval_every=0)


@pytest.fixture(scope="module")
def reference_run(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption, and keep every checkpoint."""
    run = tmp_path_factory.mktemp("reference") / "run"
    train(with_train(plain, keep_last=9), run)
    return run


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_writer, "RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(async_writer, "STOP_RETRY_SECONDS", 0.3)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


def wait_for_writer() -> None:
    """Wait until the checkpoint that is being written is complete, on a busy machine too."""
    for thread in threading.enumerate():
        if thread.name == CHECKPOINT_THREAD_NAME:
            thread.join(60)
            assert not thread.is_alive()


def test_training_continues_during_a_save_and_does_not_change_it(
    plain: Recipe, reference_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_far_ahead, write = threading.Event(), write_checkpoint

    def slow(*arguments: Any) -> Path:
        if arguments[1].step == 10:
            assert is_far_ahead.wait(60), "training waits for its checkpoint"
        return write(*arguments)

    monkeypatch.setattr(async_writer, "write_checkpoint", slow)

    def on_metrics(row: dict[str, Any]) -> None:
        if row["step"] == 18:
            is_far_ahead.set()

    run = tmp_path / "run"
    train(with_train(plain, keep_last=9), run, on_metrics)
    for step in (10, 20, 30):
        name = f"step-{step:08}"
        verify_checksums(run / "checkpoints" / name)
        assert fingerprint(run / "checkpoints" / name) == fingerprint(
            reference_run / "checkpoints" / name
        )


def test_a_disk_that_disappears_for_a_while_causes_only_a_warning(
    plain: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    run, messages = tmp_path / "run", list[str]()
    folder, elsewhere = run / "checkpoints", tmp_path / "elsewhere"

    def on_metrics(row: dict[str, Any]) -> None:
        if row["step"] == 15:
            wait_for_writer()
            folder.rename(elsewhere)
        if row["step"] == 28:
            assert not folder.exists(), "it was written to the mount point"
            elsewhere.rename(folder)

    result = train(plain, run, on_metrics, notify=lambda text, waiting=False: messages.append(text))
    assert result.is_finished
    assert losses(run) == losses(reference_run)
    assert [event["step"] for event in events(run, "not saved")] == [20]
    assert any("step 20 could not be saved (" in text for text in messages), messages
    assert fingerprint(result.checkpoint) == fingerprint(
        reference_run / "checkpoints" / result.checkpoint.name
    )


def test_no_checkpoint_is_removed_before_its_successor_is_verified(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk flips a byte of each new checkpoint."""
    run, write, flipped = tmp_path / "run", write_checkpoint, list[int]()

    def write_and_flip(*arguments: Any) -> Path:
        folder = write(*arguments)
        if arguments[1].step == 30 and len(flipped) < 3:
            flipped.append(arguments[1].step)
            content = bytearray((folder / "model.safetensors").read_bytes())
            content[-1] ^= 1
            (folder / "model.safetensors").write_bytes(content)
            # keep_last = 1 would now remove step 20
            assert [checkpoint_step(old) for old in list_checkpoints(run)] == [20, 30]
        return folder

    monkeypatch.setattr(async_writer, "write_checkpoint", write_and_flip)
    assert train(with_train(plain, keep_last=1), run).is_finished
    assert len(flipped) == 3
    assert [checkpoint_step(folder) for folder in list_checkpoints(run)] == [30]
    verify_checksums(list_checkpoints(run)[-1])
    assert "does not match its checksum" in events(run, "not saved")[0]["reason"]


def test_a_stop_without_a_disk_fails_and_keeps_the_last_checkpoint(
    plain: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    folder, elsewhere = run / "checkpoints", tmp_path / "elsewhere"

    def on_metrics(row: dict[str, Any]) -> None:
        if row["step"] == 25:
            wait_for_writer()
            folder.rename(elsewhere)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(OSError, match="No such file"):
        train(plain, run, on_metrics)
    elsewhere.rename(folder)
    assert events(run, "failed")
    result = train(plain, run)
    assert result.start_step == 20 and result.is_finished
    assert losses(run) == losses(reference_run)


def test_a_disk_too_small_for_a_checkpoint_is_refused_before_the_first_step(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(ValueError, match=r"are free in .* a checkpoint takes 0\.000"):
        train(plain, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_bug_in_the_thread_ends_the_run(
    plain: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Path:
        raise TypeError("a bug")

    monkeypatch.setattr(async_writer, "write_checkpoint", broken)
    with pytest.raises(TypeError, match="a bug"):
        train(plain, tmp_path / "run")
