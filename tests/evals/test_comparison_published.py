"""Plausibility checks of the published scores; whether a score is right cannot be tested."""

from itertools import permutations
from math import sqrt

import pytest

from gnano.evals.comparison import REFERENCE_MODELS, ReferenceModel
from gnano.evals.eval_tasks import TASKS

# accuracy of guessing, and the number of items
GUESSING = {
    "hellaswag": (1 / 4, 10_042),
    "arc_easy": (1 / 4, 2_376),
    "arc_challenge": (1 / 4, 1_172),
    "openbookqa": (1 / 4, 500),
    "piqa": (1 / 2, 1_838),
    "winogrande": (1 / 2, 1_267),
    "boolq": (1 / 2, 3_270),
    "lambada": (0.0, 5_153),
}
# the wrong answers are shorter than the right one: a weak model's acc is below guessing
SHORT_WRONG_ANSWERS = {"arc_challenge", "openbookqa"}
WITHOUT_ACC_NORM = {"winogrande", "boolq", "lambada"}

every_row = pytest.mark.parametrize("row", REFERENCE_MODELS, ids=lambda row: row.name)


@every_row
def test_row_is_plausible(row: ReferenceModel) -> None:
    assert row.source.startswith("https://") and " " not in row.source
    assert row.note, "it must name harness and data"
    assert 0.1e9 <= row.parameters <= 2e9
    assert row.tokens is None or 1e9 <= row.tokens <= 20e12
    assert row.shots >= 0
    assert row.scores and set(row.scores) <= set(TASKS)
    for task, score in row.scores.items():
        values = [value for value in score if value is not None]
        assert values, f"{task} has neither acc nor acc_norm"
        assert all(0 < value < 1 for value in values), f"{task}: percent instead of a share?"


@every_row
def test_scores_are_consistent_and_not_below_guessing(row: ReferenceModel) -> None:
    for task, (acc, acc_norm) in row.scores.items():
        chance, count = GUESSING[task]
        floor = chance - 3 * sqrt(chance * (1 - chance) / count)
        assert acc_norm is None or acc_norm >= floor, f"{task}: acc_norm {acc_norm}"
        if task not in SHORT_WRONG_ANSWERS:
            assert acc is None or acc >= floor, f"{task}: acc {acc}"
        if acc is not None and acc_norm is not None:
            assert abs(acc - acc_norm) < 0.15, task
        if "lm-evaluation-harness" in row.note and task in WITHOUT_ACC_NORM:
            assert acc_norm is None, task


def test_rows_are_unique_and_sorted_by_size_and_tokens() -> None:
    order = [(row.parameters, row.tokens or 0) for row in REFERENCE_MODELS]
    assert order == sorted(order)
    assert len({row.name for row in REFERENCE_MODELS}) == len(REFERENCE_MODELS)
    points = [(row.name.split(" step ")[0], row.tokens, row.shots) for row in REFERENCE_MODELS]
    assert len(set(points)) == len(points)


@pytest.mark.parametrize("column", [0, 1], ids=["acc", "acc_norm"])
def test_model_does_not_get_much_worse_with_more_tokens(column: int) -> None:
    for earlier, later in permutations(REFERENCE_MODELS, 2):
        same_model = earlier.name.split(" step ")[0] == later.name.split(" step ")[0]
        if not same_model or (earlier.tokens or 0) >= (later.tokens or 0):
            continue
        for task in earlier.scores.keys() & later.scores.keys() - {"boolq"}:  # noise at 1 B
            before, after = earlier.scores[task][column], later.scores[task][column]
            if before is not None and after is not None:
                assert after > before - 0.02, f"{earlier.name} -> {later.name}: {task}"


def test_every_task_has_published_scores() -> None:
    for task in TASKS:
        assert any(task in row.scores for row in REFERENCE_MODELS), task
