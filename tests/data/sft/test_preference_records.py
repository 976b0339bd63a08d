"""Records of every preference format give the same preference or an error with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from gnano.data.sft.conversations import Preference, Turn, parse_preference
from gnano.data.sft.record_loading import read_record_files

QUESTION = (Turn("user", "Where?"),)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def model(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"prompt": " Where?\n", "chosen": "Here.", "rejected": " There.\n"}, QUESTION),
        ({"prompt": "Where?", "chosen": [model("Here.")], "rejected": [model("There.")]}, QUESTION),
        ({"prompt": [user("Where?")], "chosen": [model("Here.")], "rejected": [model("There.")]},
         QUESTION),
        ({"prompt": [user("Where?")], "chosen": "Here.", "rejected": "There."}, QUESTION),
        ({"chosen": [user("Where?"), model("Here.")],
          "rejected": [user("Where?"), model("There.")]}, QUESTION),
        ({"prompt": "Where?", "chosen": [user("Where?"), model("Here.")],
          "rejected": [user("Where?"), model("There.")]}, QUESTION),
        ({"prompt": None, "chosen": [user("Where?"), model("Here.")],
          "rejected": [user("Where?"), model("There.")]}, QUESTION),
        ({"instruction": "Where?", "chosen": "Here.", "rejected": "There."}, QUESTION),
        ({"instruction": "Where?", "input": "", "chosen": "Here.", "rejected": "There."}, QUESTION),
        ({"instruction": "Where?", "input": "A map.", "chosen": "Here.", "rejected": "There."},
         (Turn("user", "Where?", "A map."),)),
        ({"instruction": "Where?", "context": "A map.", "chosen": "Here.", "rejected": "There."},
         (Turn("user", "Where?", "A map."),)),
        ({"prompt": [SYSTEM, user("Hi"), model("Yes?"), user("Where?")],
          "chosen": [model("Here.")], "rejected": [model("There.")]},
         (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Yes?"), *QUESTION)),
        ({"chosen": [SYSTEM, user("Hi"), model("Yes?"), user("Where?"), model("Here.")],
          "rejected": [SYSTEM, user("Hi"), model("Yes?"), user("Where?"), model("There.")]},
         (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Yes?"), *QUESTION)),
    ],
)  # fmt: skip
def test_each_format_gives_the_same_preference(record: object, turns: tuple[Turn, ...]) -> None:
    assert parse_preference(record) == Preference(turns, "Here.", "There.")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Where?", "chosen": "Here.", "rejected": "There."},
        {"prompt": [user("Where?")], "chosen": [model("Here.")], "rejected": [model("There.")]},
        {"instruction": "Where?", "chosen": "Here.", "rejected": "There."},
        {"chosen": [user("Where?"), model("Here.")],
         "rejected": [user("Where?"), model("There.")]},
        {"prompt": "Where?", "chosen": [user("Where?"), model("Here.")],
         "rejected": [user("Where?"), model("There.")]},
    ],
)  # fmt: skip
def test_every_format_may_have_a_system_and_a_history(record: dict[str, Any]) -> None:
    extra = {"system": "Be brief.", "history": [["Hi", "Yes?"]]}
    turns = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Yes?"), *QUESTION)
    assert parse_preference({**record, **extra}) == Preference(turns, "Here.", "There.")
    assert parse_preference(record) == Preference(QUESTION, "Here.", "There.")


GOOD: dict[str, Any] = {"prompt": "a", "chosen": "b", "rejected": "c"}
LISTS = {"chosen": [user("a"), model("b")], "rejected": [user("a"), model("c")]}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "not a record but nothing"),
        ({}, "its keys are none"),
        ({"prompt": "a", "chosen": "b"}, "its keys are prompt, chosen; known are chosen and"),
        ({"chosen": "b", "rejected": "c"}, "it has no prompt"),
        ({**GOOD, "prompt": None}, "it has no prompt"),
        ({**GOOD, "prompt": " "}, "prompt is empty"),
        ({**GOOD, "prompt": 7}, "prompt is a number, not text"),
        ({**GOOD, "prompt": []}, "prompt does not end with a question"),
        ({**GOOD, "prompt": [user("a"), model("b")]}, "prompt does not end with a question"),
        ({**GOOD, "chosen": None}, "it has no chosen"),
        ({**GOOD, "chosen": ""}, "chosen is empty"),
        ({**GOOD, "rejected": {}}, "rejected is a record, not text"),
        ({**GOOD, "rejected": []}, "rejected does not end with an answer"),
        ({**GOOD, "rejected": ["c"]}, "rejected 1 is text, not a record"),
        ({**GOOD, "rejected": "b\n"}, "chosen and rejected are the same answer"),
        ({**GOOD, "prompt": [user("a")], "rejected": [user("c")]}, "rejected 1 is the user's"),
        ({**LISTS, "rejected": [user("x"), model("c")]}, "have different prompts"),
        ({**LISTS, "rejected": LISTS["chosen"]}, "the same answer"),
        ({**LISTS, "rejected": [user("a")]}, "rejected does not end with an answer"),
        ({**LISTS, "rejected": [model("c")]}, "rejected 1 is the assistant's, where the user's"),
        ({**LISTS, "prompt": "x"}, "chosen does not begin with the prompt"),
        ({**LISTS, "instruction": ""}, "instruction is empty"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_a_reason(record: object, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_preference(record)
    assert reason in str(refused.value)


def test_bad_preferences_are_counted_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    records = [{**GOOD, "category": "open_qa"}, {**GOOD, "rejected": "b"}, GOOD]
    file.write_text("\n".join(map(json.dumps, records)))
    reading = read_record_files([str(file)], parse_preference, max_bad_share=0.4)
    assert [found.category for found in reading.records] == ["open_qa", ""]
    (notice,) = reading.warnings
    assert notice.startswith("1 of 3 records cannot be used:")
    assert f"{file}, line 2: chosen and rejected are the same answer" in notice
    with pytest.raises(ValueError, match="1 of 3 records"):
        read_record_files([str(file)], parse_preference, max_bad_share=0.3)


def test_preferences_about_the_same_question_are_held_out_together() -> None:
    same = {**GOOD, "chosen": "d", "category": "else"}
    assert parse_preference(GOOD).split_key == parse_preference(same).split_key
    assert parse_preference(GOOD).split_key != parse_preference({**GOOD, "prompt": "x"}).split_key
    assert Preference(QUESTION, "b", "c", topic="a subject").split_key == "a subject"
