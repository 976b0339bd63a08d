"""Each task's columns are parsed to the same texts as in lm-evaluation-harness."""

from pathlib import Path
from typing import Any

import pytest

from gnano.evals.eval_tasks import TASKS, EvalItem, parse_item

HUB: dict[str, Any] = {
    "hellaswag": {
        "activity_label": "Canoeing",
        "ctx_a": "Two women [title] sit.",
        "ctx_b": "the child",
        "endings": ["[step] waves.", "dives.", "a", "b"],
        "label": "1",
    },
    "arc_easy": {
        "question": "Which is a gas?",
        "choices": {"text": ["iron", "helium", "gold"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    "piqa": {"goal": "Boil water.", "sol1": "Use a pot.", "sol2": "Use a sock.", "label": 0},
    "winogrande": {
        "sentence": "Ann thanked Eve because _ had helped her.",
        "option1": "Ann",
        "option2": "Eve",
        "answer": "2",
    },
    "lambada": {"text": "He opened the door and saw the dog"},
    "openbookqa": {
        "question_stem": "Frogs are",
        "choices": {"text": ["green", "made of wood"], "label": ["1", "2"]},
        "answerKey": " 1",
    },
    "boolq": {"passage": "Ice floats.", "question": "does ice float", "label": 1},
}
SPLITS = ("train", "validation", "test")
EXPECTED = {
    "hellaswag": ("Canoeing: Two women. sit. The child", " dives."),
    "arc_easy": ("Question: Which is a gas?\nAnswer:", " helium"),
    "piqa": ("Question: Boil water.\nAnswer:", " Use a pot."),
    "winogrande": ("Ann thanked Eve because Eve", " had helped her."),
    "lambada": ("He opened the door and saw the", " dog"),
    "openbookqa": ("Frogs are", " green"),
    "boolq": ("Ice floats.\nQuestion: does ice float?\nAnswer:", " yes"),
}


@pytest.mark.parametrize("task", HUB)
def test_hub_columns_give_the_expected_texts(task):
    item = parse_item(TASKS[task], HUB[task])
    assert item.choices[item.gold] == EXPECTED[task]
    assert item.solved_text == "".join(EXPECTED[task])


@pytest.mark.slow
def test_the_harness_builds_the_same_texts_from_the_same_record():
    """The harness's own tasks get the record instead of the Hub's."""
    datasets = pytest.importorskip("datasets")
    harness = pytest.importorskip("lm_eval.tasks")
    names = "hellaswag arc piqa winogrande lambada openbookqa super_glue".split()
    folders = [str(Path(harness.__file__).parent / name) for name in names]
    manager = harness.TaskManager(include_defaults=False, include_path=folders)
    for name, record in HUB.items():
        task = "lambada_openai" if name == "lambada" else name
        data = datasets.Dataset.from_list([record])
        own = {"custom_dataset": lambda data=data, **_: dict.fromkeys(SPLITS, data)}
        built = manager._factory.build(manager.task_index[task], overrides=own, registry={})
        built.build_all_requests(limit=None, rank=0, world_size=1)
        pairs = [request.args for request in built.instances]
        assert parse_item(TASKS[name], record).choices == pairs, name


def test_every_task_accepts_plain_columns_and_appends_its_suffix():
    record = {"query": "Question: Why?\n", "choices": ["a", "b"], "gold": 1}
    assert parse_item(TASKS["piqa"], record).contexts == ("Question: Why?\nAnswer:",)
    assert parse_item(TASKS["hellaswag"], record).contexts == ("Question: Why?\n",)
    assert parse_item(None, record) == EvalItem(("Question: Why?\n",), ("a", "b"), 1)
    cloze = parse_item(TASKS["lambada"], {"context": "He saw the", "continuation": "dog"})
    assert cloze.choices == [("He saw the", " dog")]


@pytest.mark.parametrize(
    ("task", "record", "message"),
    [
        ("arc_easy", {"question": "Which?"}, "columns"),
        ("arc_easy", {**HUB["arc_easy"], "answerKey": "Z"}, "columns"),
        ("piqa", {**HUB["piqa"], "label": 2}, "number 2 of 2"),
        ("piqa", {**HUB["piqa"], "label": -1}, "number -1 of 2"),
        ("piqa", {**HUB["piqa"], "sol1": " "}, "empty"),
        ("piqa", {**HUB["piqa"], "sol1": 3}, "strings"),
        ("piqa", ["no", "object"], "not an object"),
        ("winogrande", {**HUB["winogrande"], "sentence": "no gap"}, "empty"),
        ("hellaswag", {"query": "a", "choices": "b", "gold": None}, "columns"),
        ("hellaswag", {"query": "a", "choices": [], "gold": 0}, "empty"),
        ("boolq", {**HUB["boolq"], "passage": "a", "label": None}, "columns"),
    ],
)
def test_invalid_item_is_an_error_with_the_reason(task, record, message):
    with pytest.raises(ValueError, match=message):
        parse_item(TASKS[task], record)


def test_full_text_contains_each_choice_once_and_the_right_one_in_place():
    several = EvalItem(("Which?",), ("a", "b", "c"), 1)
    assert several.full_text == "Which? b\na\nc"
    assert EvalItem(("x is", "y is"), ("here",), 1).full_text == "y is here\nx is"
    assert EvalItem(("He saw the",), ("dog",), 0).full_text == "He saw the dog"
