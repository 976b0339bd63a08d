"""`gnano compare` prints a table or JSON, writes a plot, and reuses saved results."""

import json
from pathlib import Path

import pytest
from tests.cli.runner import error_sentence, run_gnano
from tests.evals.conftest import made_items, small_model

from gnano.model.hf_io import save_model
from gnano.tokenizer.train_bpe import train_bpe


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with two models and the items of a task."""
    monkeypatch.chdir(tmp_path)
    items = made_items(30)
    tokenizer = train_bpe([item.solved_text for item in items] * 2, 300)
    for seed, name in enumerate(("one", "other")):
        tokenizer.save(tmp_path / name)
        model = small_model(tokenizer.vocab_size, seed=seed)
        save_model(model, tmp_path / name, tokenizer.end_of_text_id)
    with (tmp_path / "piqa.jsonl").open("w") as file:
        for item in items:
            row = {"query": item.contexts[0], "choices": item.answers, "gold": item.gold}
            file.write(f"{json.dumps(row)}\n")
    return tmp_path


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """Return stdout and stderr of a comparison that must succeed."""
    code, out, err = run_gnano(capsys, "compare", *arguments)
    assert code == 0, err
    return out, err


def test_two_models_are_compared_and_results_reused(capsys, workdir):
    arguments = ("one", "other", "--files", "piqa.jsonl", "mine=piqa.jsonl", "--limit", 10)
    first, err = compare(capsys, *arguments)
    assert "model 1 of 2 · one" in err
    for word in ("PIQA", "mine", "one minus other:", "within the error", "[1] https://"):
        assert word in first
    assert {path.name for path in (workdir / "evals").iterdir()} == {"one.json", "other.json"}
    again, err = compare(capsys, *arguments)
    assert again == first and err == "one: stored result\nother: stored result\n"
    bare, err = compare(capsys, "one", "other")
    assert bare == first and "stored result" in err
    assert "https://" not in compare(capsys, *arguments, "--no-published")[0]
    assert "SmolLM2-1.7B" in compare(capsys, *arguments, "--all-published")[0]


@pytest.mark.slow
def test_json_goes_to_stdout_and_the_plot_to_its_file(capsys, workdir):
    arguments = ("one", "--files", "piqa.jsonl", "--json", "--plot", "new/picture.png")
    out, err = compare(capsys, *arguments)
    found = json.loads(out)
    assert found["columns"][0]["items"] == 30 and found["models"][0]["name"] == "one"
    assert (workdir / "new/picture.png").read_bytes().startswith(b"\x89PNG")
    assert err.endswith("\nnew/picture.png\n")


def test_without_a_model_only_published_scores_are_shown(capsys, workdir):
    out, _ = compare(capsys, "--tasks", "lambada")
    assert "LAMBADA" in out and "Cerebras-GPT-111M [1]" in out and "SmolLM" not in out


def test_the_table_fits_the_terminal_width(capsys, workdir, monkeypatch):
    wide, _ = compare(capsys, "--tasks", "all")
    monkeypatch.setenv("COLUMNS", "200")
    assert len(compare(capsys, "--tasks", "all")[0].splitlines()) < len(wide.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no checkpoint nothing"),
        (("one", "one/."), "named twice"),
        (("one", "--files", "piqa=nothing.jsonl"), "nothing.jsonl"),
        (("one", "--tasks", "helaswag"), "no task 'helaswag'"),
        (("one", "--plot", "a.gif"), "FILE.png"),
        (("--no-published",), "nothing to show"),
        (("--files", "questions.jsonl"), "name of its task"),
    ],
)
def test_errors_are_one_sentence(capsys, workdir, arguments, message):
    assert message in error_sentence(capsys, "compare", *arguments)
    assert not (workdir / "evals").exists()


def test_a_missing_plot_package_is_reported_before_evaluation(capsys, workdir, monkeypatch):
    monkeypatch.setattr("gnano.utils.platform_support.find_spec", lambda name, package=None: None)
    arguments = ("compare", "one", "--files", "piqa.jsonl", "--plot", "a.png")
    assert "auto-g-nano[plot]" in error_sentence(capsys, *arguments)
    assert not (workdir / "evals").exists()
