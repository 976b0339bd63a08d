"""A resumed run must have the recipe that it was started with, except for allowed changes."""

import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tests.conftest import write_corpus
from tests.processes import fingerprint, losses
from tests.small_models import resolve_started, with_train

from gnano.cli import main
from gnano.config.data_config import SourceConfig
from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.train.trainer import train
from gnano.train.training_task import PretrainingTask


@pytest.mark.parametrize(
    "change", [{"steps": 99}, {"seed": 5}, {"grad_clip": 0.5}, {"micro_batch_size": 4}]
)
def test_changed_value_is_refused_by_name(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path, change: dict[str, float]
) -> None:
    resolve_started(recipe, tmp_path / "run", task)
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"train\.{name}   .* → {value}$"):
        resolve_started(with_train(recipe, **change), tmp_path / "run", task)


def with_peak(recipe: Recipe, peak: float) -> Recipe:
    return with_train(recipe, schedule=replace(recipe.train.schedule, peak=peak))


def refusal(recipe: Recipe, run: Path, task: PretrainingTask, *allow: str) -> str:
    """Return the error about this recipe, which leaves the run's recipe unchanged."""
    before = (run / "recipe.toml").read_bytes()
    with pytest.raises(ValueError) as refused:
        resolve_started(recipe, run, task, allow)
    assert (run / "recipe.toml").read_bytes() == before
    return str(refused.value)


def written(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text())


def test_error_lists_exactly_the_checked_changes(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    sentence, *lines = refusal(
        with_train(with_peak(recipe, 3e-4), steps=99, keep_last=7), run, task
    ).splitlines()
    assert lines == ["  train.schedule.peak   0.003 → 0.0003", "  train.steps           40 → 99"]
    assert str(run) in sentence and "2 values differ" in sentence and sentence.endswith(".")
    assert "(--out)" in sentence and "--allow train.schedule.peak train.steps" in sentence


def test_long_value_is_shown_where_it_differs(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    def with_files(last: str) -> Recipe:
        files = tuple(f"part-{number:05}.parquet" for number in range(500))
        left = replace(recipe.pretraining_data.sources["left"], files=(*files, last))
        return replace(
            recipe,
            data=replace(
                recipe.pretraining_data, sources={**recipe.pretraining_data.sources, "left": left}
            ),
        )

    resolve_started(with_files("old.parquet"), tmp_path / "run", task)
    _, line = refusal(with_files("new.parquet"), tmp_path / "run", task).splitlines()
    assert "old.parquet" in line and "new.parquet" in line and len(line) < 200


def test_suggested_flags_allow_and_record_the_changes(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    facts = written(run)["run"]
    changed = with_train(with_peak(recipe, 3e-4), steps=99, tokens_per_step=1024)
    advised = re.search(r"--allow ([^)]*)\)", refusal(changed, run, task, "train.schedule"))
    assert advised
    assert resolve_started(changed, run, task, advised[1].split()) == changed
    assert resolve_started(changed, run, task) == changed
    assert "train.steps" in refusal(recipe, run, task)
    resolve_started(with_train(changed, grad_clip=0.5), run, task, ["train.grad_clip"])
    assert written(run)["run"] == {
        **facts,
        "changes": [
            {"step": 0, "key": "train.schedule.peak", "from": 3e-3, "to": 3e-4},
            {"step": 0, "key": "train.steps", "from": 40, "to": 99},
            {"step": 0, "key": "train.tokens_per_step", "from": 512, "to": 1024},
            {"step": 0, "key": "train.grad_clip", "from": 1.0, "to": 0.5},
        ],
    }


def test_table_name_allows_only_its_keys(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    both = with_train(with_peak(recipe, 3e-4), seed=5)
    assert "--allow train.schedule train.seed" in refusal(both, run, task, "train.schedule")
    assert resolve_started(with_peak(recipe, 3e-4), run, task, ["train.schedule"])


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("train.scheduel.peak", "train.schedule.peak"),
        ("peak", "train.schedule.peak"),
        ("train.optimiser", "train.optimizer"),
        ("Data", "data"),
    ],
)
def test_unknown_allow_name_is_refused_with_a_suggestion(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path, given: str, suggested: str
) -> None:
    with pytest.raises(ValueError, match=rf"--allow {given}: .*mean '{re.escape(suggested)}'"):
        resolve_started(recipe, tmp_path / "run", task, [given])
    assert not (tmp_path / "run").exists()


def test_allow_name_may_use_dashes(recipe: Recipe, task: PretrainingTask, tmp_path: Path) -> None:
    resolve_started(recipe, tmp_path / "run", task)
    changed = with_train(recipe, tokens_per_step=1024)
    assert resolve_started(changed, tmp_path / "run", task, ["train.tokens-per-step"]) == changed


def test_fixed_values_can_never_change(
    recipe: Recipe, task: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resolve_started(recipe, run, task)
    deeper = replace(recipe, model=replace(recipe.model, n_layer=3))
    muon = with_train(recipe, optimizer=replace(recipe.train.optimizer, kind="muon"))
    narrow = with_train(recipe, precision="fp16")
    for changed, key in [
        (deeper, "model.n_layer"),
        (muon, "train.optimizer.kind"),
        (narrow, "train.precision"),
    ]:
        assert f"{key} cannot change" in refusal(changed, run, task, "model", "train")
    softer = replace(recipe, model=replace(recipe.model, dropout=0.2))
    assert resolve_started(softer, run, task, ["model.dropout"]) == softer


@pytest.mark.slow
def test_extended_run_equals_one_started_longer(recipe: Recipe, tmp_path: Path) -> None:
    """Bit for bit, with a learning rate that does not depend on the number of steps."""
    even = with_train(recipe, schedule=replace(recipe.train.schedule, floor=1.0))
    reference = train(with_train(even, steps=9), tmp_path / "reference")
    run = tmp_path / "run"
    assert train(with_train(even, steps=6), run).is_finished
    short = losses(run)
    with pytest.raises(ValueError, match=r"6 steps, and 9 extend it: add --allow train\.steps"):
        train(with_train(even, steps=9), run)
    longer = train(with_train(even, steps=9), run, allowed=["train.steps"])
    assert longer.is_finished and (longer.start_step, longer.step) == (6, 9)
    assert fingerprint(longer.checkpoint) == fingerprint(reference.checkpoint)
    seen = losses(run)
    assert {step: seen[step] for step in short} == short and seen == losses(reference.run)
    assert written(run)["run"]["changes"] == [{"step": 6, "key": "train.steps", "from": 6, "to": 9}]


def test_completed_steps_cannot_be_removed(recipe: Recipe, tmp_path: Path) -> None:
    train(with_train(recipe, steps=6), tmp_path / "run")
    with pytest.raises(ValueError, match=r"has completed 6 steps, but train.steps is 4"):
        train(with_train(recipe, steps=4), tmp_path / "run", allowed=["train.steps"])


@pytest.mark.slow
def test_allow_flag_of_the_command_line(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(with_train(recipe, steps=3), tmp_path / "run")
    file = tmp_path / "small.toml"
    file.write_text(tomli_w.dumps(asdict(with_train(with_peak(recipe, 3e-4), steps=5))))
    command = ["pretrain", str(file), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as refused:
        main(command)
    assert refused.value.code == 2
    assert "\n  train.schedule.peak   0.003 → 0.0003\n" in capsys.readouterr().err
    with pytest.raises(SystemExit) as finished:
        main([*command, "--allow", "train.schedule.peak", "train.steps"])
    assert finished.value.code == 0 and max(losses(tmp_path / "run")) == 5


def prepared(recipe: Recipe, folder: Path, tokenizer: str) -> Recipe:
    """Return the recipe with other data from sources of the same names."""
    write_corpus(folder / "corpus", documents=40)
    sources = {
        name: SourceConfig(weight=source.weight, files=(str(folder / "corpus" / name),))
        for name, source in recipe.pretraining_data.sources.items()
    }
    data = replace(
        recipe.pretraining_data,
        folder=str(folder / "data"),
        tokenizer=tokenizer,
        sources=sources,
        workers=1,
    )
    prepare(data)
    return replace(recipe, data=data)


@pytest.mark.slow
def test_run_resumes_on_other_data_if_allowed(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = with_train(recipe, steps=4)
    train(recipe, run)
    other = with_train(
        prepared(recipe, tmp_path / "other", recipe.pretraining_data.folder), steps=6
    )
    with pytest.raises(ValueError, match=r"started on other data .*\(--allow data train\.steps\)"):
        train(other, run)
    assert train(other, run, allowed=["data", "train.steps"]).step == 6
    assert train(other, run).start_step == 6
    with pytest.raises(ValueError, match=r"  data   .*fingerprint [0-9a-f]{12}… → "):
        train(with_train(recipe, steps=6), run)
    changes = {change["key"]: change for change in written(run)["run"]["changes"]}
    assert (
        changes["data"]["from"]
        == TokenizedCorpus(Path(recipe.pretraining_data.folder)).manifest.fingerprint
    )
    assert (
        changes["data"]["to"]
        == TokenizedCorpus(Path(other.pretraining_data.folder)).manifest.fingerprint
    )


def test_data_of_another_tokenizer_is_always_refused(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(with_train(recipe, steps=2), run)
    other = with_train(prepared(recipe, tmp_path / "other", "bpe-300"), steps=2)
    with pytest.raises(ValueError, match="ids mean other texts") as refused:
        train(other, run, allowed=["data"])
    assert str(result.checkpoint) in str(refused.value)
