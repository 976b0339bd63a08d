"""Answers are graded by their format, and the comparison reports losses, rates and texts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.scripted_model import teach

from gnano.data.sft.chat_template import ALPACA, ChatTemplate
from gnano.data.sft.conversations import Conversation, Turn
from gnano.evals.sft_compare import Answer, AnswerComparison, generate_answers, select_questions
from gnano.evals.text_checks import repetition_rate
from gnano.infer.engine import Engine


def question(text: str, answer: str = "so", category: str = "") -> Conversation:
    return Conversation((Turn("user", text), Turn("assistant", answer)), category)


def answers(*texts: str, stopped: bool = True) -> tuple[Answer, ...]:
    return tuple(Answer(text, stopped, contains_template=False) for text in texts)


def teach_text(engine: Engine, text: str | None) -> Engine:
    """Make the engine write a text and end; None: it never ends."""
    teach(engine.model, engine.tokenizer, text or "a", endless=text is None)
    return engine


@pytest.mark.parametrize(
    ("text", "is_exact"),
    [
        ("it read one word", True),
        (None, False),  # never ends
        (" ", False),
        ("Question:", False),
    ],
)
def test_exact_answer_is_not_empty_ends_and_contains_no_template(engine, text, is_exact):
    template = ChatTemplate(user="Question: {content}\n")
    (one,) = generate_answers(teach_text(engine, text), template, [question("what?")], 30)
    assert one.is_exact == is_exact
    assert one.stopped == (text is not None)


def test_truncated_answer_has_not_stopped(make_engine):
    text = "it read one word after another."
    length = len(make_engine().tokenizer.encode(text))
    for limit, stopped in ((length, False), (length + 1, True)):
        engine = teach_text(make_engine(), text)
        (one,) = generate_answers(engine, ALPACA, [question("what?")], limit)
        assert (one.text, one.stopped) == (text, stopped)


def test_question_longer_than_the_context_is_truncated_and_answered(engine):
    assert len(generate_answers(engine, ALPACA, [question("word " * 300)], 20)) == 1


def test_rates_are_means_over_all_answers():
    good, cut = Answer("a b c d e", True, False), Answer("x " * 50, False, False)
    rates = AnswerComparison(QUESTIONS, (good, cut), (good, good), {}).rates
    assert rates["exact"] == (0.5, 1.0)
    assert rates["repetition"] == pytest.approx(((0 + 46 / 47) / 2, 0))


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_repetition_rate_equals_a_slow_count(words):
    runs = [words[at : at + 4] for at in range(len(words) - 3)]
    repeated = sum(run in runs[:at] for at, run in enumerate(runs))
    expected = pytest.approx(repeated / len(runs) if runs else 0)
    assert repetition_rate(" ".join(words)) == expected


def test_questions_are_taken_from_all_categories_in_turn():
    heldout = {
        "b": [question(f"b{n}", category="b") for n in range(2)],
        "a": [question(f"a{n}", category="a") for n in range(5)],
    }
    chosen = [one.turns[0].content for one in select_questions(heldout, 6)]
    assert chosen == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert len(select_questions(heldout, 100)) == 7


QUESTIONS = [question("1 + 1?", "2", "sums"), question("Who | what?", "Nobody.\nNothing.", "odd")]
COMPARISON = AnswerComparison(
    QUESTIONS,
    before=answers("1 + 1? 1 + 1?", "", stopped=False),
    after=answers("2", "Nobody."),
    losses={"all": (3.41, 2.105), "sums": (3.0, 1.0), "odd": (4.0, 3.0)},
)


def test_table_has_losses_and_rates() -> None:
    rows = [line.rsplit(maxsplit=2) for line in COMPARISON.format_table().splitlines()]
    named = {name.strip(): (before, after) for name, before, after in rows[1:]}
    assert named["held-out answers, nats per token"] == ("3.410", "2.105")
    assert named["sums"] == ("3.000", "1.000")
    assert named["in the exact format, of 2 answers"] == ("0%", "100%")
    assert named["word for word as in the data"] == ("0%", "50%")


def test_rates_without_meaning_are_not_in_the_table() -> None:
    different = AnswerComparison(QUESTIONS, answers("a", "b"), answers("c", "d"), COMPARISON.losses)
    assert "word for word" not in different.format_table()
    nothing = AnswerComparison([], (), (), COMPARISON.losses)
    assert "exact format" not in nothing.format_table() and "2.105" in nothing.format_table()


def test_markdown_cells_can_contain_any_answer() -> None:
    page = COMPARISON.to_markdown()
    assert "| *nothing* | Nobody. | Nobody.<br>Nothing. |" in page
    bars = AnswerComparison(QUESTIONS[:1], answers("a|b"), answers("2"), {}).to_markdown()
    assert "| a\\|b | 2 | 2 |" in bars


def test_json_contains_rates_and_answers() -> None:
    content = json.loads(json.dumps(COMPARISON.to_dict()))
    assert content["same"] == [0.0, 0.5] and content["exact"] == [0.0, 1.0]
    assert [one["after"]["text"] for one in content["answers"]] == ["2", "Nobody."]
    assert content["answers"][0]["turns"][-1]["content"] == "2"
