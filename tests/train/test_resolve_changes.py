"""A run that goes on must be the run that was begun, but for what its user allows."""

import re
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from tests.conftest import write_corpus
from tests.processes import fingerprint, losses
from tests.small_models import settled, with_train

from gnano.config.data_config import SourceConfig
from gnano.config.recipe import Recipe
from gnano.data.prepare.pipeline import prepare
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.train.distributed.context import DistContext
from gnano.train.tasks.pretraining import PretrainingTask
from gnano.train.trainer import train

ALONE = DistContext(torch.device("cpu"))


@pytest.fixture
def texts(recipe: Recipe) -> PretrainingTask:
    return PretrainingTask(recipe.pretraining_data, recipe.model.block_size, base=None)


@pytest.mark.parametrize(
    "change", [{"steps": 99}, {"seed": 5}, {"grad_clip": 0.5}, {"micro_batch_size": 4}]
)
def test_a_changed_value_is_named_and_refused(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path, change: dict[str, float]
) -> None:
    settled(recipe, tmp_path / "run", texts, ALONE)
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"train\.{name}   .* → {value}$"):
        settled(with_train(recipe, **change), tmp_path / "run", texts, ALONE)


def with_peak(recipe: Recipe, peak: float) -> Recipe:
    return with_train(recipe, schedule=replace(recipe.train.schedule, peak=peak))


def refusal(recipe: Recipe, run: Path, texts: PretrainingTask, *allow: str) -> str:
    """What is said against this recipe; the run's own is left as it was."""
    before = (run / "recipe.toml").read_bytes()
    with pytest.raises(ValueError) as refused:
        settled(recipe, run, texts, ALONE, allow)
    assert (run / "recipe.toml").read_bytes() == before
    return str(refused.value)


def written(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text())


def test_every_changed_value_is_shown_and_none_that_may_change_anyway(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    sentence, *lines = refusal(
        with_train(with_peak(recipe, 3e-4), steps=99, keep_last=7), run, texts
    ).splitlines()
    assert lines == ["  train.schedule.peak   0.003 → 0.0003", "  train.steps           40 → 99"]
    assert str(run) in sentence and "2 values differ" in sentence and sentence.endswith(".")
    assert "(--out)" in sentence and "--allow train.schedule.peak train.steps" in sentence


def test_a_long_value_is_shown_where_it_differs(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
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

    settled(with_files("old.parquet"), tmp_path / "run", texts, ALONE)
    _, line = refusal(with_files("new.parquet"), tmp_path / "run", texts).splitlines()
    assert "old.parquet" in line and "new.parquet" in line and len(line) < 200


def test_what_the_sentence_advises_lets_the_changes_through_and_writes_them_down(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    facts = written(run)["run"]
    changed = with_train(with_peak(recipe, 3e-4), steps=99, tokens_per_step=1024)
    advised = re.search(r"--allow ([^)]*)\)", refusal(changed, run, texts, "train.schedule"))
    assert advised
    assert settled(changed, run, texts, ALONE, advised[1].split()) == changed
    assert settled(changed, run, texts, ALONE) == changed  # it's the run's own recipe from now on
    assert "train.steps" in refusal(recipe, run, texts)
    settled(with_train(changed, grad_clip=0.5), run, texts, ALONE, ["train.grad_clip"])
    assert written(run)["run"] == {
        **facts,
        "changes": [
            {"step": 0, "key": "train.schedule.peak", "from": 3e-3, "to": 3e-4},
            {"step": 0, "key": "train.steps", "from": 40, "to": 99},
            {"step": 0, "key": "train.tokens_per_step", "from": 512, "to": 1024},
            {"step": 0, "key": "train.grad_clip", "from": 1.0, "to": 0.5},
        ],
    }


def test_a_table_allows_what_is_in_it_and_nothing_else(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    both = with_train(with_peak(recipe, 3e-4), seed=5)
    assert "--allow train.schedule train.seed" in refusal(both, run, texts, "train.schedule")
    assert settled(with_peak(recipe, 3e-4), run, texts, ALONE, ["train.schedule"])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("train.scheduel.peak", "train.schedule.peak"),
        ("peak", "train.schedule.peak"),
        ("train.optimiser", "train.optimizer"),
        ("Data", "data"),
    ],
)
def test_a_name_that_allows_nothing_is_refused_with_the_one_that_was_meant(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path, said: str, meant: str
) -> None:
    with pytest.raises(ValueError, match=rf"--allow {said}: .*mean '{re.escape(meant)}'"):
        settled(recipe, tmp_path / "run", texts, ALONE, [said])
    assert not (tmp_path / "run").exists()


def test_a_name_may_be_spelled_as_its_flag_is(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    settled(recipe, tmp_path / "run", texts, ALONE)
    changed = with_train(recipe, tokens_per_step=1024)
    assert settled(changed, tmp_path / "run", texts, ALONE, ["train.tokens-per-step"]) == changed


def test_what_the_checkpoints_would_not_fit_is_never_allowed(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    deeper = replace(recipe, model=replace(recipe.model, n_layer=3))
    muon = with_train(recipe, optimizer=replace(recipe.train.optimizer, kind="muon"))
    narrow = with_train(recipe, precision="fp16")
    for changed, key in [
        (deeper, "model.n_layer"),
        (muon, "train.optimizer.kind"),
        (narrow, "train.precision"),
    ]:
        assert f"{key} cannot change" in refusal(changed, run, texts, "model", "train")
    softer = replace(recipe, model=replace(recipe.model, dropout=0.2))
    assert settled(softer, run, texts, ALONE, ["model.dropout"]) == softer


def test_an_extended_run_is_the_one_that_was_asked_for_more_at_once(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Under a learning rate that does not follow from the number of steps, bit for bit."""
    even = with_train(recipe, schedule=replace(recipe.train.schedule, floor=1.0))
    straight = train(with_train(even, steps=9), tmp_path / "straight")
    run = tmp_path / "run"
    assert train(with_train(even, steps=6), run).is_finished
    short = losses(run)
    with pytest.raises(ValueError, match=r"6 steps, and 9 extend it: add --allow train\.steps"):
        train(with_train(even, steps=9), run)
    longer = train(with_train(even, steps=9), run, allowed=["train.steps"])
    assert longer.is_finished and (longer.start_step, longer.step) == (6, 9)
    assert fingerprint(longer.checkpoint) == fingerprint(straight.checkpoint)
    seen = losses(run)
    assert {step: seen[step] for step in short} == short and seen == losses(straight.run)
    assert written(run)["run"]["changes"] == [{"step": 6, "key": "train.steps", "from": 6, "to": 9}]


def test_steps_that_are_done_cannot_be_taken_back(recipe: Recipe, tmp_path: Path) -> None:
    train(with_train(recipe, steps=6), tmp_path / "run")
    with pytest.raises(ValueError, match=r"has completed 6 steps, but train.steps is 4"):
        train(with_train(recipe, steps=4), tmp_path / "run", allowed=["train.steps"])


def test_a_change_is_allowed_on_the_command_line(recipe: Recipe, tmp_path: Path) -> None:
    train(with_train(recipe, steps=3), tmp_path / "run")
    file = tmp_path / "small.toml"
    file.write_text(tomli_w.dumps(asdict(with_train(with_peak(recipe, 3e-4), steps=5))))
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(tmp_path / "run")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "\n  train.schedule.peak   0.003 → 0.0003\n" in refused.stderr
    command += ["--allow", "train.schedule.peak", "train.steps"]
    allowed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, allowed.stderr
    assert "5 of 5 steps done" in allowed.stdout and max(losses(tmp_path / "run")) == 5


def prepared(recipe: Recipe, folder: Path, tokenizer: str) -> Recipe:
    """The recipe on other data than its own, of the same sources."""
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


def test_a_run_goes_on_with_other_data_where_that_is_allowed(
    recipe: Recipe, tmp_path: Path
) -> None:
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


def test_data_of_another_tokenizer_is_refused_though_data_is_allowed(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = train(with_train(recipe, steps=2), run)
    other = with_train(prepared(recipe, tmp_path / "other", "bpe-300"), steps=2)
    with pytest.raises(ValueError, match="ids mean other texts") as refused:
        train(other, run, allowed=["data"])
    assert str(result.checkpoint) in str(refused.value)
