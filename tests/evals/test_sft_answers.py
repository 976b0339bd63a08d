"""Whether an answer is one: said, ended, and without the template's own words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.scripted_model import teach

from gnano.data.sft.chat_template import ALPACA, ChatTemplate
from gnano.data.sft.conversations import Conversation, Turn
from gnano.evals.sft_compare import Answer, ModelAnswers, generate_answers, select_questions
from gnano.evals.text_checks import repetition_rate
from gnano.infer.engine import Engine


def asked(text: str, category: str = "") -> Conversation:
    return Conversation((Turn("user", text), Turn("assistant", "so")), category)


def saying(engine: Engine, text: str | None) -> Engine:
    """The engine, which says this and ends, whatever was asked; None: which never ends."""
    teach(engine.model, engine.tokenizer, text or "a", endless=text is None)
    return engine


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("it read one word", True),
        (None, False),  # never ends
        (" ", False),
        ("Question:", False),
    ],
)
def test_only_what_is_said_and_ends_and_is_no_template_is_in_the_format(engine, text, exact):
    own = ChatTemplate(user="Question: {content}\n")
    (one,) = generate_answers(saying(engine, text), own, [asked("what?")], 30).answers
    assert one.is_exact == exact
    assert one.stopped == (text is not None)


def test_an_answer_that_the_limit_cuts_off_has_not_stopped(make_engine):
    text = "it read one word after another."
    length = len(make_engine().tokenizer.encode(text))
    cut = generate_answers(saying(make_engine(), text), ALPACA, [asked("what?")], length)
    whole = generate_answers(saying(make_engine(), text), ALPACA, [asked("what?")], length + 1)
    assert (cut.answers[0].stopped, whole.answers[0].stopped) == (False, True)
    assert whole.answers[0].text == text == cut.answers[0].text


def test_a_question_longer_than_the_context_loses_its_front_and_is_answered(engine):
    given = generate_answers(engine, ALPACA, [asked("word " * 300)], 20)
    assert len(given.answers) == 1


def test_shares_are_those_of_all_answers():
    good, cut = Answer("a b c d e", True, False), Answer("x " * 50, False, False)
    both = ModelAnswers((good, cut))
    assert both.exact_rate == 0.5 and both.repetition_rate == pytest.approx((0 + 46 / 47) / 2)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_repetition_is_what_a_slow_count_says(words):
    runs = [words[at : at + 4] for at in range(len(words) - 3)]
    again = sum(run in runs[:at] for at, run in enumerate(runs))
    assert repetition_rate(" ".join(words)) == pytest.approx(again / len(runs) if runs else 0)


def test_questions_are_taken_from_all_categories_in_turn_and_always_the_same():
    heldout = {
        "b": [asked(f"b{n}", "b") for n in range(2)],
        "a": [asked(f"a{n}", "a") for n in range(5)],
    }
    chosen = [one.turns[0].content for one in select_questions(heldout, 6)]
    assert chosen == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert len(select_questions(heldout, 100)) == 7
