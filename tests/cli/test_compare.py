"""`gnano compare`, as it is typed: a table, JSON, a picture, mistakes."""

import json
from pathlib import Path

import pytest
from tests.cli.test_mistakes import one_sentence, refusal
from tests.evals.conftest import made_items, small_model

from gnano.cli import main
from gnano.model.hf_io import save_model
from gnano.tokenizer.train_bpe import train_bpe


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with two models, and items of a task of one's own and of a known one."""
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
    """What is printed for people, and beside it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    assert not left.value.code, printed.err
    return printed.out, printed.err


def test_two_models_are_compared_and_results_reused(capsys, place):
    typed = ("one", "other", "--files", "piqa.jsonl", "mine=piqa.jsonl", "--limit", 10)
    first, said = compare(capsys, *typed)
    assert "model 1 of 2 · one" in said
    for word in ("PIQA", "mine", "one, less other:", "within the error", "[1] https://"):
        assert word in first
    assert {path.name for path in (place / "evals").iterdir()} == {"one.json", "other.json"}
    again, said = compare(capsys, *typed)
    assert again == first and said == "one: as saved\nother: as saved\n"
    bare, said = compare(capsys, "one", "other")
    assert bare == first and "as saved" in said
    assert "https://" not in compare(capsys, *typed, "--no-published")[0]
    assert "SmolLM2-1.7B" in compare(capsys, *typed, "--all-published")[0]


def test_json_goes_to_stdout_and_the_plot_to_its_file(capsys, place):
    typed = ("one", "--files", "piqa.jsonl", "--json", "--plot", "new/picture.png")
    out, said = compare(capsys, *typed)
    found = json.loads(out)
    assert found["columns"][0]["items"] == 30 and found["models"][0]["name"] == "one"
    assert (place / "new/picture.png").read_bytes().startswith(b"\x89PNG")
    assert said.endswith("\nnew/picture.png\n")


def test_without_a_model_only_published_scores_are_shown(capsys, place):
    out, _ = compare(capsys, "--tasks", "lambada")
    assert "LAMBADA" in out and "Cerebras-GPT-111M [1]" in out and "SmolLM" not in out


def test_the_table_fits_the_terminal_width(capsys, place, monkeypatch):
    wide, _ = compare(capsys, "--tasks", "all")
    monkeypatch.setenv("COLUMNS", "200")
    assert len(compare(capsys, "--tasks", "all")[0].splitlines()) < len(wide.splitlines())


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        (("nothing",), "no checkpoint nothing"),
        (("one", "one/."), "named twice"),
        (("one", "--files", "piqa=nothing.jsonl"), "nothing.jsonl"),
        (("one", "--tasks", "helaswag"), "no task 'helaswag'"),
        (("one", "--plot", "a.gif"), "FILE.png"),
        (("--no-published",), "nothing to show"),
        (("--files", "questions.jsonl"), "does not say which task"),
    ],
)
def test_errors_are_one_sentence(capsys, place, typed, wrong):
    assert wrong in one_sentence(refusal(capsys, "compare", *typed))
    assert not (place / "evals").exists()


def test_a_missing_plot_package_is_reported_before_evaluation(capsys, place, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    typed = ("compare", "one", "--files", "piqa.jsonl", "--plot", "a.png")
    assert "auto-g-nano[plot]" in refusal(capsys, *typed)
    assert not (place / "evals").exists()
