"""Good, looping, truncated, empty and garbled texts get the verdict a reader would give."""

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
def test_text_gets_the_verdict_of_a_reader(case: Case) -> None:
    found = grade_text(case.text, case.expected, case.finished)
    assert found.grade == MISJUDGED.get(case.name, case.grade), found
    assert found.reasons[0].startswith(case.reason), found


EXPECTED = st.sampled_from([STORY, CODE, LIST, FACT, ANSWER, CODE_ANSWER])


@given(text=st.text(), expected=EXPECTED, finished=st.booleans())
def test_any_text_has_a_verdict_with_a_reason(
    text: str, expected: Expectation, finished: bool
) -> None:
    found = grade_text(text, expected, finished)
    assert found.grade in ("OK", "WEAK", "FAIL") and all(found.reasons) and found.reasons


@given(
    code=st.text(alphabet="def f(x):\n\t \"'\\return[{1}]#@=", max_size=60), finished=st.booleans()
)
def test_code_that_is_almost_python_has_a_verdict(code: str, finished: bool) -> None:
    for expected in (CODE, CODE_ANSWER):
        assert grade_text(code, expected, finished).reasons


@given(text=st.text(min_size=6, max_size=200), expected=EXPECTED, finished=st.booleans())
def test_text_repeated_eight_times_is_never_ok(
    text: str, expected: Expectation, finished: bool
) -> None:
    assert grade_text(text * 8, expected, finished).grade != "OK"


@given(
    text=st.one_of(st.text(), st.sampled_from([case.text for case in KNOWN])),
    space=st.text(alphabet=" \n\t"),
    expected=EXPECTED,
    finished=st.booleans(),
)
def test_trailing_white_space_changes_nothing(
    text: str, space: str, expected: Expectation, finished: bool
) -> None:
    assert grade_text(text + space, expected, finished) == grade_text(text, expected, finished)


@pytest.mark.parametrize("function", [textwrap.fill, textwrap.indent, shutil.copyfileobj])
def test_valid_function_is_python_wherever_the_limit_truncates_it(
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
    expected = Expectation(kind="code", code_before=before)
    for end in range(len("".join(lines[head:first])), len(after) + 1):
        reasons = grade_text(after[:end], expected, finished=False).reasons
        assert not [reason for reason in reasons if reason.startswith("Python")], after[:end]


def test_incomplete_code_is_weak_if_the_model_ended_it() -> None:
    incomplete = "\n    counts = {}\n    for word in text.split():\n        counts["
    assert grade_text(incomplete, CODE, finished=False).grade == "OK"
    assert (
        grade_text(incomplete, CODE, finished=True)
        .reasons[0]
        .startswith("Python: 1 of its 3 lines")
    )
    assert grade_text(incomplete, CODE, finished=True).grade == "WEAK"


def test_text_after_a_function_is_ignored() -> None:
    function = "\n    return len(text.split())\n"
    text = "\nThis counts the words.\nOf a long text it is\n\n  * quick, and\n  * right.\n\nThe end"
    for finished in (True, False):
        assert grade_text(function + text, CODE, finished).grade == "OK"
        # inside the function, text is an error
        inside = grade_text(function + text.replace("\n", "\n    "), CODE, finished)
        assert inside.reasons[0].startswith("Python: 1 of its 6 lines"), inside


@pytest.mark.parametrize(
    ("check", "text", "expected"),
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
def test_each_check_is_reported(check: str, text: str, expected: Expectation) -> None:
    found = grade_text(
        text, replace(expected, topic_stems=expected.topic_stems if "topic" in check else ()), False
    )
    (reason,) = found.reasons
    assert reason.startswith(check) and found.grade != "OK", found


def test_minimum_of_words_depends_on_the_question() -> None:
    short, long = (
        Expectation(is_answer=True, topic_stems=("paris",), min_words=1),
        Expectation(is_answer=True, topic_stems=("paris",), min_words=20),
    )
    assert grade_text("Paris.", short, finished=True).grade == "OK"
    found = grade_text("Paris.", long, finished=True)
    assert found.grade == "FAIL" and "1 word, where 20" in found.reasons[0]


def test_ending_immediately_fails_and_reaching_the_limit_does_not() -> None:
    assert grade_text(" hydrogen", FACT, finished=True).grade == "FAIL"
    assert grade_text(" hydrogen", FACT, finished=False).grade == "OK"
    assert grade_text("Blue light scatters more.", ANSWER, finished=False).grade == "WEAK"


def test_half_a_character_at_the_limit_is_not_garbled() -> None:
    text = " hydrogen and oxygen, as was shown in a caf\ufffd"
    assert grade_text(text, FACT, finished=False).grade == "OK"
    assert grade_text(text, FACT, finished=True).reasons[0].startswith("garbled")


def test_several_weak_checks_fail_together() -> None:
    prose = (
        "Of which country is it the capital of and why asked the snake but nobody who was there "
        "could say it. So they all went home to their mothers and it began to rain."
    )
    expected = Expectation(kind="list", is_answer=True, topic_stems=("towel",))
    found = grade_text(prose, expected, finished=False)  # no list, off topic, truncated
    assert found.grade == "WEAK" and len(found.reasons) == 3, found
    repeated = f"{prose} {prose[:60]}"
    assert grade_text(repeated, Expectation(), finished=False).grade == "WEAK"
    assert grade_text(repeated, expected, finished=False).grade == "FAIL"
