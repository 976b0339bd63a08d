"""`gnano sft` and `gnano dpo` tune a model, print a table, and report errors in one sentence."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.cli.runner import error_output, error_sentence, output
from tests.conftest import write_questions

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.recipe import Recipe


@pytest.fixture(scope="module")
def file(sft_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tuning recipe as a file, without its base, like the packaged recipes."""
    content = asdict(sft_recipe)
    content["train"]["init_from"] = ""
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(tomli_w.dumps(content))
    return path


@pytest.fixture(scope="module")
def run(file: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    with pytest.raises(SystemExit) as exit_info:
        from gnano.cli import main

        options = ["--answers", "3", "--answer-tokens", "12", "--out", str(out)]
        main(["sft", str(file), "--from", str(base), *options])
    assert not exit_info.value.code
    return out


@pytest.mark.slow
def test_base_and_tuned_model_are_compared(run, file, base, capsys):
    options = ("--answers", 3, "--answer-tokens", 12, "--out", run)
    text = output(capsys, "sft", file, "--from", base, *options)  # again: it is done
    assert "steps done" in text and "lowest held-out loss" in text
    row = next(line for line in text.splitlines() if line.startswith("held-out answers"))
    before, after = map(float, row.split()[-2:])
    assert after < before
    assert "in the exact format, of 3 answers" in text and "repetition" in text
    found = json.loads((run / "answers.json").read_text())
    assert found["losses"]["all"] == pytest.approx([before, after], abs=6e-4)
    assert len(found["answers"]) == 3
    text = (run / "answers.md").read_text()
    assert text.count("| before | after | in the data |") == 3
    assert found["answers"][0]["turns"][0]["content"] in text
    assert found["answers"][0]["after"]["text"][:10] in (run / "report.html").read_text()


@pytest.mark.slow
def test_files_replace_the_sources_of_the_recipe(file, base, tmp_path, capsys):
    mine = tmp_path / "mine.jsonl"
    write_questions(mine, 20)
    out = tmp_path / "run"
    output(
        capsys, "sft", file, "--from", base, "--files", mine, "--out", out,
        "--data.epochs", 1, "--answers", 0,
    )  # fmt: skip
    assert str(mine) in (out / "recipe.toml").read_text()
    assert not json.loads((out / "answers.json").read_text())["answers"]


@pytest.mark.slow
def test_a_run_without_held_out_questions_reports_it(file, base, tmp_path, capsys):
    options = ("--data.heldout-fraction", 0, "--out", tmp_path / "run")
    text = output(capsys, "sft", file, "--from", base, *options)
    assert "no question is held out (data.heldout_fraction is 0%)" in text and "before" not in text


@pytest.mark.slow
def test_other_commands_accept_a_tuned_run(run, tmp_path, capsys):
    text = output(capsys, "info", run)
    assert "instructions, 2 epochs: mine" in text and "finished" in text and "best" in text
    assert "finished" in output(capsys, "runs", run.parent)
    output(capsys, "weights", run, tmp_path / "shared")
    assert (tmp_path / "shared" / "chat_template.jinja").is_file()
    assert (tmp_path / "shared" / "template.json").is_file()
    output(capsys, "generate", tmp_path / "shared", "Q: Say bird\n\n", "-n", 5)


def test_packaged_recipes_are_described_and_planned(capsys):
    assert "instructions, 3 epochs: dolly" in output(capsys, "info", "1b-sft")
    assert "1,050,002,688" in output(capsys, "plan", "1b-sft", "--gpu", "h200")
    assert "preferences, 1 epochs" in output(capsys, "info", "1b-dpo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft", "1b-sft"], "Tuning needs a base model"),
        (["sft", "1b-sft", "--from", "nowhere"], "nowhere"),
        (["sft", "1b"], "trains on texts"),
        (["sft", "1b-dpo"], "gnano dpo RECIPE"),
        (["dpo", "1b-sft"], "gnano sft RECIPE"),
        (["prepare", "1b-sft"], "gnano sft RECIPE --from BASE"),
        (["pretrain", "1b-sft"], "gnano sft RECIPE --from BASE"),
    ],
)
def test_a_wrong_command_or_base_is_one_sentence(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_sentence(capsys, *arguments)
    assert not list(tmp_path.glob("runs/*/recipe.toml"))


def test_invalid_bases_and_files_are_named(file, base, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    out = ("--out", tmp_path / "run")
    assert "model" in error_sentence(capsys, "sft", file, "--from", tmp_path / "model", *out)
    nothing = ("--files", tmp_path / "*.jsonl")
    error = error_sentence(capsys, "sft", file, "--from", base, *nothing, *out)
    assert "No file matches" in error
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"instruction": 3, "response": "x"}\n')
    error = error_output(capsys, "sft", file, "--from", base, "--files", bad, *out)
    assert "bad.jsonl, line 1: instruction is a number, not text" in error
    assert find_checkpoint(base) == base


@pytest.mark.slow
def test_a_finished_run_succeeds_when_its_base_has_moved(file, base, tmp_path, capsys):
    here = shutil.copytree(base, tmp_path / "base")
    options = ("--answers", 2, "--answer-tokens", 4, "--out", tmp_path / "run", "--train.steps", 3)
    assert "3 of 3 steps done" in output(capsys, "sft", file, "--from", here, *options)
    here.rename(tmp_path / "elsewhere")
    text = output(capsys, "sft", file, "--from", here, *options)
    assert "3 of 3 steps done" in text


@pytest.mark.slow
def test_the_steps_flag_replaces_the_epochs(file, base, tmp_path, capsys):
    options = ("--from", base, "--answers", 0, "--out", tmp_path / "run")
    assert "2 of 2 steps done" in output(capsys, "sft", file, *options, "--train.steps=2")
    more = ("--train.steps", 4, "--allow", "train.steps")
    assert "4 of 4 steps done" in output(capsys, "sft", file, *options, *more)
