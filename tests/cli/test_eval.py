"""`gnano eval` prints a table, saves the result, and reports errors in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.cli.runner import error_sentence, output
from tests.evals.conftest import made_items, saved_model, words

__all__ = ["saved_model", "words"]


@pytest.fixture
def items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "piqa.jsonl"
    rows = [
        {"query": item.contexts[0], "choices": list(item.answers), "gold": item.gold}
        for item in made_items(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_eval_prints_a_table_and_saves_the_result(saved_model, items, tmp_path, capsys):
    (tmp_path / "story.txt").write_text("A stone sees the river.\n" * 20)
    arguments = ("eval", saved_model, "--files", items, "--limit", 20)
    table = output(capsys, *arguments, "--text", "story.txt")
    assert "PIQA" in table and "story.txt" in table
    saved = json.loads((tmp_path / "evals/random.json").read_text())
    assert saved["scores"][0]["items"] == 20
    printed = json.loads(output(capsys, *arguments, "--json"))
    assert printed["scores"] == saved["scores"] and printed["bits"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["MODEL", "--tasks", "helaswag"], "no task 'helaswag'"),
        (["MODEL", "--files", "questions.jsonl"], "name of its task"),
        (["MODEL", "--tasks", "none", "--data", "nowhere"], "nowhere"),
        (["MODEL", "--tasks", "none", "--text", "nowhere.txt"], "nowhere.txt"),
        (["MODEL", "--tasks", "none", "--limit", "-1"], "-1"),
        (["MODEL", "--files", "ITEMS", "--check-contamination"], "--data"),
        (["MODEL", "--files", "ITEMS", "--batch-size", "0"], "batch"),
        (["MODEL", "--tasks", "none", "--heldout-tokens", "-5"], "-5"),
    ],
)
def test_errors_are_one_sentence(saved_model, items, tmp_path, arguments, message, capsys):
    known = {"MODEL": saved_model, "ITEMS": items}
    assert message in error_sentence(capsys, "eval", *(known.get(word, word) for word in arguments))
    assert not (tmp_path / "evals").exists()


@pytest.mark.slow
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
