"""`gnano smoke`: exit codes, reproducible texts, tables and JSON."""

import json

import pytest
from tests.cli.runner import error_sentence, run_gnano
from tests.fakes.scripted_model import teach
from tests.infer.conftest import make_engine, save_engine, tokenizer

from gnano.data.sft.chat_template import ChatTemplate, save_template
from gnano.infer.engine import Engine
from gnano.model.transformer import GPT
from gnano.tokenizer.train_bpe import train_bpe

__all__ = ["make_engine", "save_engine", "tokenizer"]
# a function in one line, in which no token comes twice: short, and of no topic, but not broken
LINE = "def f(a): return not b or c and d"


def smoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    return run_gnano(capsys, "smoke", *arguments)


@pytest.fixture
def broken(make_engine, save_engine):
    """A model of random weights."""
    return save_engine(make_engine(block_size=256))


@pytest.fixture
def answering(save_engine):
    """A model that answers everything with that line, and ends."""
    tokenizer = train_bpe([LINE] * 9, 278)
    model = GPT(
        vocab_size=tokenizer.vocab_size,
        n_embd=256,
        n_layer=1,
        n_head=4,
        n_kv_head=2,
        ffn_hidden=64,
        block_size=512,
    )
    teach(model, tokenizer, LINE)
    return save_engine(Engine(model, tokenizer))


def test_a_failing_model_exits_with_1_and_reasons(capsys, broken):
    code, out, _ = smoke(capsys, broken, "-n", 40)
    assert code == 1
    table, _, texts = out.partition("\n\n──")
    assert table.splitlines()[-1] == "0 OK · 0 WEAK · 12 FAIL"
    rows = [line for line in table.splitlines() if " FAIL " in line]
    assert len(rows) == 12 and all(len(row.split()) > 3 for row in rows)
    assert texts.count("Once upon a time") == 2 and texts.count("def count_words(text):") == 2


def test_a_passing_model_exits_with_0(capsys, answering):
    code, out, err = smoke(capsys, answering, "--format", "alpaca", "--temperatures", 0)
    assert code == 0, out
    assert "0 OK · 6 WEAK · 0 FAIL" in out and out.count(LINE) == 6
    assert "--format own" not in err


def test_json_holds_the_same_grades(capsys, answering):
    arguments = (answering, "--format", "alpaca", "--temperatures", 0, 0.1, "--json")
    code, out, _ = smoke(capsys, *arguments)
    found = json.loads(out)
    assert code == 0 and (found["ok"], found["weak"], found["fail"]) == (0, 12, 0)
    assert len(found["samples"]) == 12
    for sample in found["samples"]:
        assert sample["text"] == LINE and sample["finished"] and sample["grade"] == "WEAK"


def test_the_seed_determines_the_texts(capsys, broken):
    arguments = (broken, "-n", 16, "--seed")
    assert smoke(capsys, *arguments, 1) == smoke(capsys, *arguments, 1)
    assert smoke(capsys, *arguments, 1)[1] != smoke(capsys, *arguments, 2)[1]


def test_another_template_than_the_model_s_own_gives_a_note(capsys, answering):
    save_template(ChatTemplate(user="Q: {content}\n"), answering)
    arguments = (answering, "--temperatures", 0, "--format")
    assert "--format own" in smoke(capsys, *arguments, "alpaca")[2]
    code, out, err = smoke(capsys, *arguments, "own")
    assert code == 0 and out.count(LINE) == 6 and "--format own" not in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-n", "2"], "tokens is 2; it must be at least 16"),
        (["--format", "poem"], "There is no format 'poem'"),
        (["--format", "own"], "has no readable template"),
        (["--temperatures"], "There is no temperature"),
        (["--seed", "-3"], "seed is -3"),
    ],
)
def test_errors_exit_with_2(capsys, broken, arguments, reason):
    assert reason in error_sentence(capsys, "smoke", broken, *arguments)


def test_a_path_without_a_checkpoint_is_named(capsys, tmp_path):
    error = error_sentence(capsys, "smoke", tmp_path / "no")
    assert "There is no checkpoint" in error and "no:" in error
    assert "holds no checkpoint" in error_sentence(capsys, "smoke", tmp_path)
