"""`gnano smoke`, as a program: exit codes, the same texts again, tables and JSON."""

import json
from pathlib import Path

import pytest
from tests.cli.test_mistakes import one_sentence, refusal
from tests.fakes.scripted_model import teach
from tests.infer.conftest import make_engine, save_engine, tokenizer

from gnano.cli import main
from gnano.data.sft.chat_template import ChatTemplate, save_template
from gnano.infer.engine import Engine
from gnano.model.transformer import GPT
from gnano.tokenizer.train_bpe import train_bpe

__all__ = ["make_engine", "save_engine", "tokenizer"]
# a function in one line, in which no token comes twice: short, and of no topic, but not broken
LINE = "def f(a): return not b or c and d"


def smoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code, and what is printed for people and beside it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["smoke", *map(str, arguments)])
    printed = capsys.readouterr()
    code = left.value.code
    assert isinstance(code, int)
    return code, printed.out, printed.err


@pytest.fixture
def broken(make_engine, save_engine):
    """Random weights."""
    return save_engine(make_engine(block_size=256))


@pytest.fixture
def answering(save_engine):
    """A model that answers anything with that line, and ends."""
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


def test_a_failing_model_exits_with_1_and_reasons(capsys, broken) -> None:
    code, out, _ = smoke(capsys, broken, "-n", 40)
    assert code == 1
    table, _, texts = out.partition("\n\n──")
    assert table.splitlines()[-1] == "0 OK · 0 WEAK · 12 FAIL"
    rows = [line for line in table.splitlines() if " FAIL " in line]
    assert len(rows) == 12 and all(len(row.split()) > 3 for row in rows)
    assert texts.count("Once upon a time") == 2 and texts.count("def count_words(text):") == 2


def test_a_passing_model_exits_with_0(capsys, answering) -> None:
    code, out, err = smoke(capsys, answering, "--format", "alpaca", "--temperatures", 0)
    assert code == 0, out
    assert "0 OK · 6 WEAK · 0 FAIL" in out and out.count(LINE) == 6
    assert "--format own" not in err


def test_json_holds_the_same_grades(capsys, answering) -> None:
    told = (answering, "--format", "alpaca", "--temperatures", 0, 0.1, "--json")
    code, out, _ = smoke(capsys, *told)
    found = json.loads(out)
    assert code == 0 and (found["ok"], found["weak"], found["fail"]) == (0, 12, 0)
    assert len(found["samples"]) == 12
    for sample in found["samples"]:
        assert sample["text"] == LINE and sample["finished"] and sample["grade"] == "WEAK"


def test_the_seed_determines_the_texts(capsys, broken) -> None:
    told = (broken, "-n", 16, "--seed")
    assert smoke(capsys, *told, 1) == smoke(capsys, *told, 1)
    assert smoke(capsys, *told, 1)[1] != smoke(capsys, *told, 2)[1]


def test_another_template_than_the_model_s_own_gives_a_note(capsys, answering) -> None:
    save_template(ChatTemplate(user="Q: {content}\n"), answering)
    told = (answering, "--temperatures", 0, "--format")
    assert "--format own" in smoke(capsys, *told, "alpaca")[2]
    code, out, err = smoke(capsys, *told, "own")
    assert code == 0 and out.count(LINE) == 6 and "--format own" not in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-n", "2"], "tokens is 2; it must be at least 16"),
        (["--format", "poem"], "No format is called 'poem'"),
        (["--format", "own"], "has no template that can be read"),
        (["--temperatures"], "There is no temperature"),
        (["--seed", "-3"], "seed is -3"),
    ],
)
def test_errors_exit_with_2(capsys, broken, arguments, reason) -> None:
    assert reason in one_sentence(refusal(capsys, "smoke", broken, *arguments))


def test_a_path_without_a_checkpoint_is_named(capsys, tmp_path: Path) -> None:
    said = one_sentence(refusal(capsys, "smoke", tmp_path / "no"))
    assert "There is no checkpoint" in said and "no:" in said
    assert "holds no checkpoint" in one_sentence(refusal(capsys, "smoke", tmp_path))
