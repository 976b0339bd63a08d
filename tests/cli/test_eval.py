"""`gnano eval` as a person types it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.evals.conftest import made_items, saved_model, words

from gnano.cli import main

__all__ = ["saved_model", "words"]


def gnano(*arguments, cwd):
    command = [sys.executable, "-m", "gnano", "eval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "piqa.jsonl"
    rows = [
        {"query": item.contexts[0], "choices": list(item.answers), "gold": item.gold}
        for item in made_items(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_eval_prints_a_table_and_saves_the_result(saved_model, items, tmp_path):
    (tmp_path / "story.txt").write_text("A stone sees the river.\n" * 20)
    told = gnano(saved_model, "--files", items, "--text", "story.txt", "--limit", 20, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "PIQA" in told.stdout and "story.txt" in told.stdout
    kept = json.loads((tmp_path / "evals/random.json").read_text())
    assert kept["scores"][0]["items"] == 20
    printed = gnano(saved_model, "--files", items, "--limit", 20, "--json", cwd=tmp_path)
    again = json.loads(printed.stdout)
    assert again["scores"] == kept["scores"] and again["bits"] == []


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["nowhere"], "nowhere"),
        (["MODEL", "--tasks", "helaswag"], "no task 'helaswag'"),
        (["MODEL", "--files", "questions.jsonl"], "which task"),
        (["MODEL", "--tasks", "none", "--data", "nowhere"], "nowhere"),
        (["MODEL", "--tasks", "none", "--text", "nowhere.txt"], "nowhere.txt"),
        (["MODEL", "--tasks", "none", "--limit", "-1"], "-1"),
        (["MODEL", "--files", "ITEMS", "--check-contamination"], "--data"),
        (["MODEL", "--files", "ITEMS", "--batch-size", "0"], "batch"),
        (["MODEL", "--tasks", "none", "--heldout-tokens", "-5"], "-5"),
    ],
)
def test_errors_are_one_sentence(
    saved_model, items, tmp_path, arguments, wrong, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    known = {"MODEL": str(saved_model), "ITEMS": str(items)}
    with pytest.raises(SystemExit) as left:
        main(["eval", *(known.get(word, word) for word in arguments)])
    assert left.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("gnano: ") and wrong in sentence
    assert not (tmp_path / "evals").exists()


def test_ctrl_c_leaves_no_partial_result(saved_model, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("A stone sees the river, and no bird takes a letter.\n" * 40_000)
    command = [sys.executable, "-m", "gnano", "eval", saved_model, "--tasks", "none"]
    process = subprocess.Popen(
        [*command, "--text", text], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "rows" not in process.stderr.readline():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert "Stopped" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert not (tmp_path / "evals").exists()
