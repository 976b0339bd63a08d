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
from tests.small import with_train

from gnano.data import Corpus, Source, prepare
from gnano.train import Recipe, train
from gnano.train.ranks.world import World
from gnano.train.settle import settle

ALONE = World(torch.device("cpu"))


@pytest.fixture
def corpus(recipe: Recipe) -> Corpus:
    return Corpus(Path(recipe.data.folder))


def test_auto_is_settled_once_and_kept(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    asked = with_train(recipe, precision="auto", device="auto", compile="auto")
    first = settle(asked, tmp_path / "run", corpus, ALONE)
    assert first.train.precision in ("fp32", "bf16") and first.train.device != "auto"
    file = tmp_path / "run" / "recipe.toml"
    other = "bf16" if first.train.precision == "fp32" else "fp32"
    file.write_text(file.read_text().replace(f'"{first.train.precision}"', f'"{other}"'))
    # a noisy measurement today must not change what yesterday's half was computed in
    assert settle(asked, tmp_path / "run", corpus, ALONE).train.precision == other


@pytest.mark.parametrize("change", [{"steps": 99}, {"seed": 5}, {"clip": 0.5}, {"micro_batch": 4}])
def test_a_changed_value_is_named_and_refused(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, change: dict[str, float]
) -> None:
    settle(recipe, tmp_path / "run", corpus, ALONE)
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"train\.{name}   .* → {value}$"):
        settle(with_train(recipe, **change), tmp_path / "run", corpus, ALONE)


def with_peak(recipe: Recipe, peak: float) -> Recipe:
    return with_train(recipe, schedule=replace(recipe.train.schedule, peak=peak))


def refusal(recipe: Recipe, run: Path, corpus: Corpus, *allow: str) -> str:
    """What is said against this recipe; the run's own is left as it was."""
    before = (run / "recipe.toml").read_bytes()
    with pytest.raises(ValueError) as refused:
        settle(recipe, run, corpus, ALONE, allow)
    assert (run / "recipe.toml").read_bytes() == before
    return str(refused.value)


def written(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text())


def test_every_changed_value_is_shown_and_none_that_may_change_anyway(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    sentence, *lines = refusal(
        with_train(with_peak(recipe, 3e-4), steps=99, keep=7), run, corpus
    ).splitlines()
    assert lines == ["  train.schedule.peak   0.003 → 0.0003", "  train.steps           40 → 99"]
    assert str(run) in sentence and "2 values differ" in sentence and sentence.endswith(".")
    assert "(--out)" in sentence and "--allow train.schedule.peak train.steps" in sentence


def test_a_long_value_is_shown_where_it_differs(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    def with_files(last: str) -> Recipe:
        files = tuple(f"part-{number:05}.parquet" for number in range(500))
        left = replace(recipe.data.sources["left"], files=(*files, last))
        return replace(
            recipe, data=replace(recipe.data, sources={**recipe.data.sources, "left": left})
        )

    settle(with_files("old.parquet"), tmp_path / "run", corpus, ALONE)
    _, line = refusal(with_files("new.parquet"), tmp_path / "run", corpus).splitlines()
    assert "old.parquet" in line and "new.parquet" in line and len(line) < 200


def test_what_the_sentence_advises_lets_the_changes_through_and_writes_them_down(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    facts = written(run)["run"]
    changed = with_train(with_peak(recipe, 3e-4), steps=99, tokens_per_step=1024)
    advised = re.search(r"--allow ([^)]*)\)", refusal(changed, run, corpus, "train.schedule"))
    assert advised
    assert settle(changed, run, corpus, ALONE, advised[1].split()) == changed
    assert settle(changed, run, corpus, ALONE) == changed  # it's the run's own recipe from now on
    assert "train.steps" in refusal(recipe, run, corpus)
    settle(with_train(changed, clip=0.5), run, corpus, ALONE, ["train.clip"])
    assert written(run)["run"] == {
        **facts,
        "changes": [
            {"step": 0, "key": "train.schedule.peak", "from": 3e-3, "to": 3e-4},
            {"step": 0, "key": "train.steps", "from": 40, "to": 99},
            {"step": 0, "key": "train.tokens_per_step", "from": 512, "to": 1024},
            {"step": 0, "key": "train.clip", "from": 1.0, "to": 0.5},
        ],
    }


def test_a_table_allows_what_is_in_it_and_nothing_else(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    both = with_train(with_peak(recipe, 3e-4), seed=5)
    assert "--allow train.schedule train.seed" in refusal(both, run, corpus, "train.schedule")
    assert settle(with_peak(recipe, 3e-4), run, corpus, ALONE, ["train.schedule"])


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
    recipe: Recipe, corpus: Corpus, tmp_path: Path, said: str, meant: str
) -> None:
    with pytest.raises(ValueError, match=rf"--allow {said}: .*mean '{re.escape(meant)}'"):
        settle(recipe, tmp_path / "run", corpus, ALONE, [said])
    assert not (tmp_path / "run").exists()


def test_a_name_may_be_spelled_as_its_flag_is(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    settle(recipe, tmp_path / "run", corpus, ALONE)
    changed = with_train(recipe, tokens_per_step=1024)
    assert settle(changed, tmp_path / "run", corpus, ALONE, ["train.tokens-per-step"]) == changed


def test_what_the_checkpoints_would_not_fit_is_never_allowed(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    deeper = replace(recipe, model=replace(recipe.model, n_layer=3))
    muon = with_train(recipe, optimizer=replace(recipe.train.optimizer, kind="muon"))
    narrow = with_train(recipe, precision="fp16")
    for changed, key in [
        (deeper, "model.n_layer"),
        (muon, "train.optimizer.kind"),
        (narrow, "train.precision"),
    ]:
        assert f"{key} can't be allowed" in refusal(changed, run, corpus, "model", "train")
    softer = replace(recipe, model=replace(recipe.model, dropout=0.2))
    assert settle(softer, run, corpus, ALONE, ["model.dropout"]) == softer


def test_an_extended_run_is_the_one_that_was_asked_for_more_at_once(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Under a learning rate that does not follow from the number of steps, bit for bit."""
    even = with_train(recipe, schedule=replace(recipe.train.schedule, floor=1.0))
    straight = train(with_train(even, steps=9), tmp_path / "straight")
    run = tmp_path / "run"
    assert train(with_train(even, steps=6), run).finished
    short = losses(run)
    with pytest.raises(ValueError, match=r"6 steps, and 9 extend it: add --allow train\.steps"):
        train(with_train(even, steps=9), run)
    longer = train(with_train(even, steps=9), run, allow=["train.steps"])
    assert longer.finished and (longer.began, longer.step) == (6, 9)
    assert fingerprint(longer.checkpoint) == fingerprint(straight.checkpoint)
    seen = losses(run)
    assert {step: seen[step] for step in short} == short and seen == losses(straight.run)
    assert written(run)["run"]["changes"] == [{"step": 6, "key": "train.steps", "from": 6, "to": 9}]


def test_steps_that_are_done_cannot_be_taken_back(recipe: Recipe, tmp_path: Path) -> None:
    train(with_train(recipe, steps=6), tmp_path / "run")
    with pytest.raises(ValueError, match=r"has done 6 steps, and is now asked for 4"):
        train(with_train(recipe, steps=4), tmp_path / "run", allow=["train.steps"])


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


def test_saving_and_measuring_may_change_under_way(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    settle(recipe, tmp_path / "run", corpus, ALONE)
    measuring = {"eval_every": 7, "eval_tokens": 64, "profile_at": 3, "trackers": ("tensorboard",)}
    changed = with_train(recipe, save_every=3, keep=9, **measuring)
    assert settle(changed, tmp_path / "run", corpus, ALONE) == changed


def test_how_the_model_is_divided_over_ranks_may_change_under_way(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    settle(recipe, tmp_path / "run", corpus, ALONE)
    changed = with_train(recipe, parallel="fsdp", replicas=2, recompute=True)
    assert settle(changed, tmp_path / "run", corpus, ALONE) == changed


def test_with_several_ranks_the_way_is_chosen_and_a_split_that_fails_is_refused(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    settled = settle(recipe, tmp_path / "run", corpus, World(cpu, 0, 2))
    assert settled.train.parallel == "ddp"  # a CPU's ranks share its memory: nothing to fit into
    with pytest.raises(ValueError, match=r"cannot be split over 3 ranks of 8 × 32"):
        settle(recipe, tmp_path / "other", corpus, World(cpu, 0, 3))
    assert not (tmp_path / "other").exists()


def test_fp8_is_refused_where_it_cannot_run(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"FP8.*needs a GPU.*Choose train\.precision"):
        settle(with_train(recipe, precision="fp8"), tmp_path / "run", corpus, ALONE)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'wandb', which is not installed: pip install"):
        settle(with_train(recipe, trackers=("wandb",)), tmp_path / "run", corpus, ALONE)
    assert not (tmp_path / "run").exists()


def prepared(recipe: Recipe, folder: Path, tokenizer: str) -> Recipe:
    """The recipe on other data than its own, of the same sources."""
    write_corpus(folder / "corpus", documents=40)
    sources = {
        name: Source(weight=source.weight, files=(str(folder / "corpus" / name),))
        for name, source in recipe.data.sources.items()
    }
    data = replace(
        recipe.data, folder=str(folder / "data"), tokenizer=tokenizer, sources=sources, workers=1
    )
    prepare(data)
    return replace(recipe, data=data)


def test_a_run_goes_on_with_other_data_where_that_is_allowed(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = with_train(recipe, steps=4)
    train(recipe, run)
    other = with_train(prepared(recipe, tmp_path / "other", recipe.data.folder), steps=6)
    with pytest.raises(ValueError, match=r"begun on other data .*\(--allow data train\.steps\)"):
        train(other, run)
    assert train(other, run, allow=["data", "train.steps"]).step == 6
    assert train(other, run).began == 6
    with pytest.raises(ValueError, match=r"  data   .*fingerprint [0-9a-f]{12}… → "):
        train(with_train(recipe, steps=6), run)
    changes = {change["key"]: change for change in written(run)["run"]["changes"]}
    assert changes["data"]["from"] == Corpus(Path(recipe.data.folder)).manifest.fingerprint
    assert changes["data"]["to"] == Corpus(Path(other.data.folder)).manifest.fingerprint


def test_data_of_another_tokenizer_is_refused_though_data_is_allowed(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = train(with_train(recipe, steps=2), run)
    other = with_train(prepared(recipe, tmp_path / "other", "bpe-300"), steps=2)
    with pytest.raises(ValueError, match="ids mean other texts") as refused:
        train(other, run, allow=["data"])
    assert str(result.checkpoint) in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "becomes"),
    [
        (b"(?s).*", b""),
        (b"steps = ", b"steps # "),
        (b"clip =", b"clap ="),
        (b"\\[run\\]", b"[ran]"),
        (b"data_fingerprint", b"data_fingerprinu"),
        (b'kind = "cosine"', b'kind = "cosinf"'),
        (b"fp32", b"fp\xff2"),
    ],
)
def test_a_damaged_recipe_of_a_run_is_named_with_what_to_do(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, pattern: bytes, becomes: bytes
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    file = run / "recipe.toml"
    damaged = re.sub(pattern, lambda _: becomes, file.read_bytes(), count=1)
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    said = refusal(recipe, run, corpus)
    assert said.startswith(f"{file} is damaged") and "delete it" in said
    assert "\n" not in said and said.endswith(".")
    file.unlink()
    assert settle(recipe, run, corpus, ALONE) == recipe


def test_no_flipped_bit_of_a_recipe_passes_for_another_recipe(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    whole = (run / "recipe.toml").read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (run / "recipe.toml").write_bytes(flipped)
        try:  # it may have hit a fact, or what is free to change
            assert settle(recipe, run, corpus, ALONE) == recipe
        except ValueError as error:
            assert str(run) in str(error)


def test_a_run_of_an_older_version_goes_on(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    """What its recipe.toml does not know of yet is at its default."""
    run = tmp_path / "run"
    settle(recipe, run, corpus, ALONE)
    old = written(run)
    del old["train"]["guard"], old["train"]["keep_best"], old["data"]["inside_documents"]
    (run / "recipe.toml").write_text(tomli_w.dumps(old))
    assert settle(recipe, run, corpus, ALONE) == recipe


def test_a_vocabulary_that_does_not_fit_is_refused(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    wrong = replace(recipe, model=replace(recipe.model, vocab_size=512))
    with pytest.raises(ValueError, match=r"300 entries.*vocab_size 512"):
        settle(wrong, tmp_path / "run", corpus, ALONE)
    assert not (tmp_path / "run").exists()


def test_sources_that_do_not_fit_are_refused(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    sources = {"left": recipe.data.sources["left"]}
    wrong = replace(recipe, data=replace(recipe.data, sources=sources))
    with pytest.raises(ValueError, match=r"holds the sources left, right.*are left"):
        settle(wrong, tmp_path / "run", corpus, ALONE)
