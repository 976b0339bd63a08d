"""Keys of records are used or reported as unused."""

import json

import pytest

from gnano.config.data_config import InstructionConfig, InstructionSource
from gnano.data.sft.record_loading import load_conversations, load_preferences

USER_MESSAGE = {"role": "user", "content": "Where?", "weight": 1, "name": ""}
RECORDS = {
    "instructions": [
        {"instruction": "Where?", "output": "Here.", "category": "a", "tools": ["map"], "id": 7},
        {"instruction": "When?", "output": "Now.", "tools": [], "system": "Be brief."},
        {"messages": [USER_MESSAGE, {"role": "assistant", "content": "Here."}], "prompt": "Where?"},
        {"prompt": "Where?", "completion": "Here.", "system_prompt": None},
    ],
    "preferences": [
        {"prompt": "Where?", "chosen": "a", "rejected": "b", "tools": ["map"], "id": 7},
        {"instruction": "Where?", "chosen": "a", "rejected": "b", "prompt": None, "system": "c"},
        {"prompt": [USER_MESSAGE], "chosen": "a", "rejected": "b"},
    ],
}
NAMED = {
    "instructions": {"tools", "id", "messages.weight", "prompt"},
    "preferences": {"tools", "id", "prompt.weight"},
}


@pytest.mark.parametrize("kind", RECORDS)
def test_each_unused_key_is_reported_once(kind, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS[kind] * 3)))
    sources = {"mine": InstructionSource(files=(str(path),))}
    config = InstructionConfig(kind=kind, heldout_fraction=0, sources=sources)
    gather = load_conversations if kind == "instructions" else load_preferences
    (message,) = gather(config).warnings
    start, _, keys = message.partition(": ")
    assert start == "Keys that are not used"
    assert {key.split(" (")[0] for key in keys.split(", ")} == NAMED[kind]
    assert all(key.endswith("(3 records)") for key in keys.split(", "))


def test_used_keys_are_not_reported(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"instruction": "a", "context": "b", "response": "c"}))
    sources = {"mine": InstructionSource(files=(str(path),))}
    assert load_conversations(InstructionConfig(heldout_fraction=0, sources=sources)).warnings == []
