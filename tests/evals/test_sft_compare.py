"""What tuning has changed is told as it was found."""

import json

from gnano.data.sft.conversations import Conversation, Turn
from gnano.evals.sft_compare import Answer, AnswerComparison, ModelAnswers


def question(text: str, answer: str, category: str = "") -> Conversation:
    return Conversation((Turn("user", text), Turn("assistant", answer)), category)


def said(*texts: str, stopped: bool = True) -> ModelAnswers:
    return ModelAnswers(tuple(Answer(text, stopped, contains_template=False) for text in texts))


QUESTIONS = [question("1 + 1?", "2", "sums"), question("Who | what?", "Nobody.\nNothing.", "odd")]
FOUND = AnswerComparison(
    QUESTIONS,
    before=said("1 + 1? 1 + 1?", "", stopped=False),
    after=said("2", "Nobody."),
    losses={"all": (3.41, 2.105), "sums": (3.0, 1.0), "odd": (4.0, 3.0)},
)


def test_the_table_has_the_losses_and_what_was_counted() -> None:
    rows = [line.rsplit(maxsplit=2) for line in FOUND.format_table().splitlines()]
    named = {name.strip(): (before, after) for name, before, after in rows[1:]}
    assert named["held-out answers, nats a token"] == ("3.410", "2.105")
    assert named["sums"] == ("3.000", "1.000")
    assert named["in the exact format, of 2 answers"] == ("0%", "100%")
    assert named["word for word as in the data"] == ("0%", "50%")


def test_answers_at_length_are_not_told_to_be_unlike_the_data() -> None:
    other = AnswerComparison(QUESTIONS, said("a", "b"), said("c", "d"), FOUND.losses)
    assert "word for word" not in other.format_table()
    nothing = AnswerComparison([], ModelAnswers(()), ModelAnswers(()), FOUND.losses)
    assert "exact format" not in nothing.format_table() and "2.105" in nothing.format_table()


def test_a_cell_of_the_page_holds_any_answer() -> None:
    page = FOUND.to_markdown()
    assert "| *nothing* | Nobody. | Nobody.<br>Nothing. |" in page
    bars = AnswerComparison(QUESTIONS[:1], said("a|b"), said("2"), {}).to_markdown()
    assert "| a\\|b | 2 | 2 |" in bars


def test_programs_read_the_same() -> None:
    stored = json.loads(json.dumps(FOUND.to_dict()))
    assert stored["same"] == [0.0, 0.5] and stored["exact"] == [0.0, 1.0]
    assert [one["after"]["text"] for one in stored["answers"]] == ["2", "Nobody."]
    assert stored["answers"][0]["turns"][-1]["content"] == "2"
