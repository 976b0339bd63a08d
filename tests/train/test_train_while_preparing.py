"""Training during `gnano prepare` waits for data and gives the same weights."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.partial_dataset import PartialDataset
from tests.processes import fingerprint, losses
from tests.small_models import with_train

import gnano.train.trainer
from gnano.config.recipe import Recipe
from gnano.data import source_files as inputs_module
from gnano.data.prepare.pipeline import prepare
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def several(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The small recipe over tasks of 8 files each, long enough to read every task."""
    folder = tmp_path_factory.mktemp("several") / "data"
    data = replace(
        recipe.pretraining_data, folder=str(folder), tokenizer=recipe.pretraining_data.folder
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs_module, "MIN_TASK_BYTES", 8 * 400)
        manifest = prepare(data)
    assert min(len(source.tasks) for source in manifest.sources.values()) > 5
    return with_train(replace(recipe, data=data), eval_tokens=64)


@pytest.fixture
def short_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gnano.train.trainer, "POLL_INTERVAL", 0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("short_poll")
def test_run_that_waits_for_shards_gives_the_same_weights(several: Recipe, tmp_path: Path) -> None:
    reference = train(several, tmp_path / "reference")
    partial = PartialDataset(Path(several.pretraining_data.folder), tmp_path / "data")
    waits: list[str] = []

    def notify(text: str, waiting: bool = False) -> None:
        if not waiting:
            return
        waits.append(text)
        if partial.done < len(partial.sequence):
            partial.finish_tasks()
        else:
            partial.finish_all()

    recipe = replace(several, data=replace(several.pretraining_data, folder=str(partial.folder)))
    waited = train(recipe, tmp_path / "waited", notify=notify)
    assert fingerprint(waited.checkpoint) == fingerprint(reference.checkpoint)
    assert losses(tmp_path / "waited") == losses(tmp_path / "reference")
    assert len(waits) > 8
    assert "waiting for `gnano prepare`: held-out text of source 'left'" in waits[0]
    assert any("shard 3 of source 'right'" in text for text in waits)


@pytest.mark.usefixtures("short_poll")
@pytest.mark.slow
@pytest.mark.parametrize("tasks", [0, 4])
def test_ctrl_c_while_waiting_saves_a_checkpoint(
    several: Recipe, tmp_path: Path, tasks: int
) -> None:
    partial = PartialDataset(Path(several.pretraining_data.folder), tmp_path / "data", tasks)
    recipe = replace(several, data=replace(several.pretraining_data, folder=str(partial.folder)))

    def notify(text: str, waiting: bool = False) -> None:
        if waiting:
            signal.raise_signal(signal.SIGINT)

    stopped = train(recipe, tmp_path / "run", notify=notify)
    assert stopped.stopped_by == signal.SIGINT and not stopped.is_finished
    partial.finish_all()
    finished = train(recipe, tmp_path / "run")
    assert finished.start_step == stopped.step and finished.is_finished
    reference = train(several, tmp_path / "reference")
    assert fingerprint(finished.checkpoint) == fingerprint(reference.checkpoint)


@pytest.mark.slow
def test_run_on_another_shard_plan_is_refused(several: Recipe, tmp_path: Path) -> None:
    train(with_train(several, steps=2), tmp_path / "run")
    other = replace(several.pretraining_data, folder=str(tmp_path / "other"), shard_tokens=500)
    prepare(other)
    same_values = replace(other, shard_tokens=several.pretraining_data.shard_tokens)
    recipe = with_train(replace(several, data=same_values), steps=2)
    with pytest.raises(ValueError, match="started on other data"):
        train(recipe, tmp_path / "run")
