"""Good, looping, cut, empty and garbled texts get the verdict that a reader would give them."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evals.eval_texts import (
    ANSWER,
    CODE,
    CODE_ANSWER,
    FACT,
    KNOWN,
    LIST,
    MISJUDGED,
    STORY,
    UNSEEN,
    Case,
)

from gnano.evals.text_checks import Expectation, grade_text


@pytest.mark.parametrize("case", [*KNOWN, *UNSEEN], ids=lambda case: case.name)
def test_a_text_gets_the_verdict_of_a_reader(case: Case) -> None:
    found = grade_text(case.text, case.wanted, case.ended)
    assert found.grade == MISJUDGED.get(case.name, case.grade), found
    assert found.reasons[0].startswith(case.reason), found


WANTED = st.sampled_from([STORY, CODE, LIST, FACT, ANSWER, CODE_ANSWER])


@given(text=st.text(), wanted=WANTED, ended=st.booleans())
def test_any_text_has_a_verdict_with_a_reason(text: str, wanted: Expectation, ended: bool) -> None:
    found = grade_text(text, wanted, ended)
    assert found.grade in ("OK", "WEAK", "FAIL") and all(found.reasons) and found.reasons


@given(code=st.text(alphabet="def f(x):\n\t \"'\\return[{1}]#@=", max_size=60), ended=st.booleans())
def test_nearly_python_has_a_verdict_too(code: str, ended: bool) -> None:
    for wanted in (CODE, CODE_ANSWER):
        assert grade_text(code, wanted, ended).reasons


@given(text=st.text(min_size=6, max_size=200), wanted=WANTED, ended=st.booleans())
def test_what_is_said_eight_times_is_never_fine(
    text: str, wanted: Expectation, ended: bool
) -> None:
    assert grade_text(text * 8, wanted, ended).grade != "OK"


@given(
    text=st.one_of(st.text(), st.sampled_from([case.text for case in KNOWN])),
    space=st.text(alphabet=" \n\t"),
    wanted=WANTED,
    ended=st.booleans(),
)
def test_white_space_after_it_changes_nothing(
    text: str, space: str, wanted: Expectation, ended: bool
) -> None:
    assert grade_text(text + space, wanted, ended) == grade_text(text, wanted, ended)


@pytest.mark.parametrize("function", [textwrap.fill, textwrap.indent, shutil.copyfileobj])
def test_a_right_function_is_python_wherever_the_limit_cuts_it(
    function: Callable[..., object],
) -> None:
    source = textwrap.dedent(inspect.getsource(function))
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.FunctionDef)
    docstring = ast.get_docstring(tree) is not None
    head = tree.body[0].end_lineno if docstring else tree.body[0].lineno - 1
    first = tree.body[1 if docstring else 0].end_lineno
    lines = source.splitlines(keepends=True)
    before, after = "".join(lines[:head]), "".join(lines[head:])
    wanted = Expectation(kind="code", code_before=before)
    for end in range(len("".join(lines[head:first])), len(after) + 1):
        reasons = grade_text(after[:end], wanted, finished=False).reasons
        assert not [reason for reason in reasons if reason.startswith("Python")], after[:end]


def test_the_same_cut_is_a_fault_of_a_text_that_ended_so_by_itself() -> None:
    begun = "\n    counts = {}\n    for word in text.split():\n        counts["
    assert grade_text(begun, CODE, finished=False).grade == "OK"
    assert grade_text(begun, CODE, finished=True).reasons[0].startswith("Python: 1 of its 3 lines")
    assert grade_text(begun, CODE, finished=True).grade == "WEAK"


def test_what_follows_a_function_is_not_its_fault() -> None:
    function = "\n    return len(text.split())\n"
    text = "\nThis counts the words.\nOf a long text it is\n\n  * quick, and\n  * right.\n\nThe end"
    for ended in (True, False):
        assert grade_text(function + text, CODE, ended).grade == "OK"
        # within it, text is one
        inside = grade_text(function + text.replace("\n", "\n    "), CODE, ended)
        assert inside.reasons[0].startswith("Python: 1 of its 6 lines"), inside


@pytest.mark.parametrize(
    ("sign", "text", "wanted"),
    [
        (
            "lines: 3 of 6",
            "Extraordinarily quiet evening.\nIt was in the summer of that year.\nExtraordinarily "
            "quiet evening.\nAll of them had gone home.\nExtraordinarily quiet evening.\nSo on.",
            Expectation(),
        ),
        (
            "words: ",
            "the seaWas on theHill.top and it had_been there for allOf us, fisherManWhoSaw the "
            "boat(s) of the_village in their netWorks",
            Expectation(),
        ),
        (
            "script: ",
            "it is the вода of the земля, and so it was for all of us in the мир",
            Expectation(),
        ),
        (
            "letters: ",
            "the sum of 123456 and 234567 is 358023, and of 87654 and 2 it is 87656",
            Expectation(),
        ),
        ("letters: ", "\n    return [3, 14, 159, 26, 53, 589, 79, 323, 846, 26, 43, 38, 32]", CODE),
        ("topic: ", "it is the capital of the country, and all of us live in it now", FACT),
    ],
)
def test_each_sign_is_seen_alone(sign: str, text: str, wanted: Expectation) -> None:
    found = grade_text(
        text, replace(wanted, topic_stems=wanted.topic_stems if "topic" in sign else ()), False
    )
    (reason,) = found.reasons
    assert reason.startswith(sign) and found.grade != "OK", found


def test_a_word_is_an_answer_to_one_question_and_none_to_another() -> None:
    short, long = (
        Expectation(is_answer=True, topic_stems=("paris",), min_words=1),
        Expectation(is_answer=True, topic_stems=("paris",), min_words=20),
    )
    assert grade_text("Paris.", short, finished=True).grade == "OK"
    found = grade_text("Paris.", long, finished=True)
    assert found.grade == "FAIL" and "1 word, where 20" in found.reasons[0]


def test_to_end_at_once_is_a_fault_and_to_reach_the_limit_is_none() -> None:
    assert grade_text(" hydrogen", FACT, finished=True).grade == "FAIL"
    assert grade_text(" hydrogen", FACT, finished=False).grade == "OK"
    assert grade_text("Blue light scatters more.", ANSWER, finished=False).grade == "WEAK"


def test_half_a_character_where_the_limit_cut_is_no_garbage() -> None:
    text = " hydrogen and oxygen, as was shown in a caf\ufffd"
    assert grade_text(text, FACT, finished=False).grade == "OK"
    assert grade_text(text, FACT, finished=True).reasons[0].startswith("garbled")


def test_weak_signs_that_come_together_are_no_chance() -> None:
    prose = (
        "Of which country is it the capital of and why asked the snake but nobody who was there "
        "could say it. So they all went home to their mothers and it began to rain."
    )
    wanted = Expectation(kind="list", is_answer=True, topic_stems=("towel",))
    found = grade_text(prose, wanted, finished=False)  # not a list, not of towels, and no end
    assert found.grade == "WEAK" and len(found.reasons) == 3, found
    again = f"{prose} {prose[:60]}"
    assert grade_text(again, Expectation(), finished=False).grade == "WEAK"
    assert grade_text(again, wanted, finished=False).grade == "FAIL"
