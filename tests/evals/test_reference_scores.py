"""Laws that a table of other people's numbers has to keep. Whether one is true, no test knows."""

from math import sqrt

import pytest

from gnano.evals.eval_tasks import TASKS
from gnano.evals.reference_scores import REFERENCE_MODELS, ReferenceModel

# What guessing gives (four answers, two, or any word of the language), and out of how many.
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
# Distractors that are shorter than the truth: there a weak model's acc is worse than guessing.
SHORT_WRONG_ANSWERS = {"arc_challenge", "openbookqa"}
WITHOUT_NORM_IN_THE_HARNESS = {"winogrande", "boolq", "lambada"}

every_row = pytest.mark.parametrize("row", REFERENCE_MODELS, ids=lambda row: row.name)


@every_row
def test_a_score_is_a_share_of_right_answers(row: ReferenceModel) -> None:
    assert row.scores and set(row.scores) <= set(TASKS)
    for task, score in row.scores.items():
        given = [value for value in score if value is not None]
        assert given, f"{task} has neither acc nor acc_norm"
        assert all(0 < value < 1 for value in given), f"{task}: percent instead of a share?"


@every_row
def test_no_score_is_suspiciously_below_guessing(row: ReferenceModel) -> None:
    for task, (acc, acc_norm) in row.scores.items():
        chance, questions = GUESSING[task]
        floor = chance - 3 * sqrt(chance * (1 - chance) / questions)
        assert acc_norm is None or acc_norm >= floor, f"{task}: acc_norm {acc_norm}"
        if task not in SHORT_WRONG_ANSWERS:
            assert acc is None or acc >= floor, f"{task}: acc {acc}"


@every_row
def test_acc_and_acc_norm_are_of_one_task_and_so_not_far_apart(row: ReferenceModel) -> None:
    for task, (acc, acc_norm) in row.scores.items():
        if acc is not None and acc_norm is not None:
            assert abs(acc - acc_norm) < 0.15, task


@every_row
def test_a_normalised_score_stands_only_where_its_harness_has_one(row: ReferenceModel) -> None:
    if "lm-evaluation-harness" in row.note:
        for task in WITHOUT_NORM_IN_THE_HARNESS & set(row.scores):
            assert row.scores[task][1] is None, task


@every_row
def test_every_row_says_where_it_was_read(row: ReferenceModel) -> None:
    assert row.source.startswith("https://")
    assert " " not in row.source
    assert row.note, "which harness, which data"


@every_row
def test_sizes_and_tokens_are_those_of_small_language_models(row: ReferenceModel) -> None:
    assert 0.1e9 <= row.parameters <= 2e9
    assert row.tokens is None or 1e9 <= row.tokens <= 20e12
    assert row.shots >= 0


def test_rows_are_sorted_by_size_and_then_by_tokens() -> None:
    order = [(row.parameters, row.tokens or 0) for row in REFERENCE_MODELS]
    assert order == sorted(order)


def test_no_model_appears_twice_at_the_same_moment() -> None:
    assert len({row.name for row in REFERENCE_MODELS}) == len(REFERENCE_MODELS)
    moments = [(row.name.split(" step ")[0], row.tokens, row.shots) for row in REFERENCE_MODELS]
    assert len(set(moments)) == len(moments)


@pytest.mark.parametrize("column", [0, 1], ids=["acc", "acc_norm"])
def test_a_model_does_not_get_much_worse_while_it_learns(column: int) -> None:
    for earlier in REFERENCE_MODELS:
        for later in REFERENCE_MODELS:
            if earlier.name.split(" step ")[0] != later.name.split(" step ")[0]:
                continue
            if (earlier.tokens or 0) >= (later.tokens or 0):
                continue
            for task in earlier.scores.keys() & later.scores.keys() - {"boolq"}:  # noise at 1 B
                before, after = earlier.scores[task][column], later.scores[task][column]
                if before is not None and after is not None:
                    assert after > before - 0.02, f"{earlier.name} -> {later.name}: {task}"


def test_every_task_has_someone_to_compare_with() -> None:
    for task in TASKS:
        assert any(task in row.scores for row in REFERENCE_MODELS), task
