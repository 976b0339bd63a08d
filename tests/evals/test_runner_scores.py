"""Right is what a person counting by hand would call right, and the error is that of a sample."""

import json
import math
import statistics
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.evals.eval_tasks import EvalItem, TaskItems
from gnano.evals.runner import Accuracy, TaskScore, is_correct, score_task

CHOICE = EvalItem(("q",), ("a", "bbbb"), 1)


@pytest.mark.parametrize(
    ("item", "found", "expected"),
    [
        (CHOICE, [(-1.0, False), (-2.0, False)], (False, True)),  # 0.5 a character against 1
        (CHOICE, [(-2.0, False), (-1.0, False)], (True, True)),
        (CHOICE, [(-1.0, True), (-8.0, True)], (False, False)),
        (CHOICE, [(-1.0, False), (-1.0, False)], (False, True)),  # of equals the first
        (EvalItem(("q",), ("word",), 0), [(-9.0, True)], (True, True)),
        (EvalItem(("q",), ("word",), 0), [(-0.1, False)], (False, False)),
        (EvalItem(("x", "y"), ("rest",), 1), [(-3.0, False), (-2.0, False)], (True, True)),
    ],
)
def test_right_by_likelihood_and_by_that_of_a_character(item, found, expected):
    assert is_correct(item, found) == expected


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_the_error_is_that_of_a_mean_of_samples(outcomes):
    accuracy = Accuracy.from_counts(sum(outcomes), len(outcomes))
    assert accuracy.value == pytest.approx(statistics.mean(outcomes))
    deviation = statistics.stdev(map(float, outcomes)) / math.sqrt(len(outcomes))
    assert accuracy.stderr == pytest.approx(deviation, abs=1e-12)


def test_of_one_answer_the_perplexity_is_told_and_no_guess_is_right():
    sheet = TaskItems("lambada", (EvalItem(("q",), ("word",), 0),) * 2)
    found = score_task(sheet, [[(-math.log(4), True)], [(-math.log(9), False)]])
    assert found.perplexity == pytest.approx(6) and found.chance == 0
    assert found.acc.value == 0.5 and found.acc_norm is None


def test_chance_is_that_of_the_items_own_numbers_of_answers():
    items = (EvalItem(("q",), ("a", "b"), 0), EvalItem(("q",), ("a", "b", "c", "d"), 0))
    found = score_task(TaskItems("mine", items), [[(-1.0, False)] * 2, [(-1.0, False)] * 4])
    assert found.chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_a_score_comes_back_from_json_as_it_was():
    sheet = TaskItems("winogrande", (EvalItem(("x", "y"), ("rest",), 1),), shots=2)
    found = score_task(sheet, [[(-3.0, False), (-2.0, False)]])
    assert TaskScore.from_dict(json.loads(json.dumps(asdict(found)))) == found
    assert found.acc_norm is None  # its answers are all one
