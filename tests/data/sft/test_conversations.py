"""Records of every format give the same conversation or an error with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from gnano.data.sft.conversations import Conversation, Turn, parse_conversation
from gnano.data.sft.record_loading import read_record_files

DOLLY = Path(__file__).parents[4] / "shared/data/databricks-dolly-15k"
ONE_TURN = (Turn("user", "Where is it?", "A map."), Turn("assistant", "There."))
PLAIN = (Turn("user", "Where is it?"), Turn("assistant", "There."))
BEFORE = (Turn("system", "Be brief."), Turn("user", "Lost it?"), Turn("assistant", "Yes."))
MESSAGES = [
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "There."},
]
FORMS: dict[str, dict[str, Any]] = {
    "dolly": {"instruction": "Where is it?", "response": "There."},
    "alpaca": {"instruction": "Where is it?", "input": "", "output": "There."},
    "messages": {"messages": MESSAGES},
    "sharegpt": {"conversations": [
        {"from": "human", "value": "Where is it?"}, {"from": "gpt", "value": "There."},
    ]},
    "prompt": {"prompt": "Where is it?", "completion": "There."},
    "prompt as messages": {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
    "parts": {"messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Where "}, {"type": "text", "text": "is it?"},
        ]},
        {"role": "assistant", "content": [{"type": "text", "text": "There."}]},
    ]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_format_may_have_a_system_and_a_history(form: str) -> None:
    extra = {"system": "Be brief.", "history": [["Lost it?", "Yes."]]}
    assert parse_conversation(FORMS[form]).turns == PLAIN
    assert parse_conversation({**FORMS[form], "system": None, "history": []}).turns == PLAIN
    assert parse_conversation({**FORMS[form], "system": ""}).turns == PLAIN
    assert parse_conversation({**FORMS[form], **extra}).turns == (*BEFORE, *PLAIN)


def test_a_repeated_system_turn_is_used_once_and_a_different_one_refused() -> None:
    record = {"messages": [{"role": "developer", "content": "Be brief."}, *MESSAGES]}
    for system in None, "Be brief.":
        found = parse_conversation({**record, "system": system})
        assert found.turns == (Turn("system", "Be brief."), *PLAIN)
    with pytest.raises(ValueError, match="messages 1 is the system's"):
        parse_conversation({**record, "system": "Be long."})


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"instruction": "Where is it?", "context": " A map.\n", "response": "There."}, ONE_TURN),
        ({"instruction": "Where is it?", "input": "A map.", "output": " There.\n"}, ONE_TURN),
        ({"instruction": "Where is it?", "context": None, "response": "There."}, PLAIN),
        (
            {"conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Where is it?"},
                {"from": "gpt", "value": "There."},
            ]},
            (Turn("system", "Be brief."), *PLAIN),
        ),
    ],
)  # fmt: skip
def test_each_format_gives_the_same_conversation(record: object, turns: tuple[Turn, ...]) -> None:
    assert parse_conversation(record).turns == turns


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "not a record but text"),
        ({}, "its keys are none"),
        ({"question": "?"}, "its keys are question; known are instruction"),
        ({"instruction": "a", "response": " \n"}, "response is empty"),
        ({"instruction": "", "response": "b"}, "instruction is empty"),
        ({"instruction": 7, "output": "b"}, "instruction is a number, not text"),
        ({"instruction": "a", "output": ["b"]}, "output is a list, not text"),
        ({"instruction": "a", "context": {}, "response": "b"}, "context is a record, not text"),
        ({"messages": "hello"}, "messages is text, not a list"),
        ({"messages": []}, "messages does not end with an answer"),
        ({"messages": [{"role": "user", "content": "a"}]}, "does not end with an answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "1 is the assistant's, where"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "role of messages 1 is 'tool', none of"),
        ({"messages": [{"content": "a"}]}, "it has no role"),
        ({"conversations": [{"from": "human", "value": None}]}, "it has no value"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
         "2 is the system's, where the assistant"),
        ({"messages": [{"role": "user", "content": "a"},
                       {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
         "messages 2 calls tools (tool_calls)"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
         "content has a part of type 'image_url', not text"),
        ({"instruction": "a", "output": "b", "system": 7}, "system is a number, not text"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "history 1 is not a pair"),
        ({"instruction": "a", "output": "b", "history": 5}, "history is a number, not a list"),
        ({"prompt": "a", "completion": " "}, "completion is empty"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_a_reason(record: object, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_conversation(record)
    assert reason in str(refused.value)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file of two good records and several kinds of bad ones."""
    good = {"instruction": "a", "response": "b", "category": "open_qa"}
    empty = {**good, "response": ""}
    lines = [json.dumps(good), "{", '"text"', "", json.dumps(empty), json.dumps(good)]
    file = tmp_path / "mixed.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_bad_records_are_counted_and_the_first_are_shown_with_their_lines(mixed: Path) -> None:
    reading = read_record_files([str(mixed)], parse_conversation, max_bad_share=0.6)
    read = Conversation((Turn("user", "a"), Turn("assistant", "b")), "open_qa")
    assert reading.records == [read, read]
    assert [bad.line for bad in reading.bad_records.examples] == [2, 3, 5]
    (message,) = reading.warnings
    assert message.startswith("3 of 5 records cannot be used:")
    assert f"{mixed}, line 2: it is not JSON" in message
    assert f"{mixed}, line 5: response is empty" in message


def test_bad_records_can_be_refused(mixed: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of 5 records(?s:.*)At most 0.59 .*data.max_bad_share"):
        read_record_files([str(mixed)], parse_conversation, max_bad_share=0.59)


def test_a_file_without_a_usable_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text('{"text": "a"}\n' * 9)
    with pytest.raises(ValueError, match=r"9 of 9 records cannot be used"):
        read_record_files([str(tmp_path / "none.jsonl")], parse_conversation, max_bad_share=1)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="it has no records"):
        read_record_files([str(tmp_path / "empty.jsonl")], parse_conversation)


def test_lists_and_parquet_are_read_as_lines_are(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    records = [
        {"instruction": f"{n}?", "input": "", "output": f"{n}!", "category": "x"} for n in range(9)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "a.json").write_text(json.dumps(records, indent=1))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    found = [
        read_record_files([str(tmp_path / f"a.{kind}")], parse_conversation).records
        for kind in ("jsonl", "json", "parquet")
    ]
    assert len(found[0]) == 9 and found[0] == found[1] == found[2]


@pytest.mark.skipif(not DOLLY.is_dir(), reason="the real Dolly in ../shared/data is not here")
def test_all_of_dolly_is_read() -> None:
    reading = read_record_files([str(DOLLY)], parse_conversation)
    bad = reading.bad_records
    assert len(reading.records) + bad.bad_count == bad.read_count == 15_011
    assert bad.bad_count < 10, reading.warnings
    assert len({conversation.category for conversation in reading.records}) == 8
