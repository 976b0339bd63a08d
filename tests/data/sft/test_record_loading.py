"""The held-out split depends on the question; invalid sources and unused keys are reported."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.config.data_config import InstructionConfig, InstructionSource
from gnano.data.sft.conversations import Conversation, Turn
from gnano.data.sft.record_loading import SplitRecords, load_conversations, load_preferences


def write(path: Path, questions: list[str], **more: str) -> str:
    rows = [{"instruction": q, "output": f"answer {n}", **more} for n, q in enumerate(questions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(heldout: float = 0.3, **files: str) -> SplitRecords[Conversation]:
    sources = {name: InstructionSource(files=(path,)) for name, path in files.items()}
    return load_conversations(InstructionConfig(heldout_fraction=heldout, sources=sources))


def questions(found: dict[str, list[Conversation]]) -> set[str]:
    return {one.turns[0].content for group in found.values() for one in group}


def test_a_question_is_in_the_same_split_in_every_file_and_with_any_fraction(
    tmp_path: Path,
) -> None:
    names = [f"What is {n}?" for n in range(200)]
    a, b = write(tmp_path / "a.jsonl", names), write(tmp_path / "b.jsonl", names[::-1])
    found = load(a=a, b=b)
    assert not questions(found.train) & questions(found.heldout)
    assert 30 < len(questions(found.heldout)) < 90
    assert questions(load(0.1, a=a).heldout) < questions(found.heldout)
    assert len(found.train["a"]) == len(found.train["b"])
    assert not load(0.0, a=a).heldout


@given(topics=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20))
def test_conversations_of_one_topic_are_held_out_together(topics: list[str]) -> None:
    made = [
        Conversation((Turn("user", f"q{n}"), Turn("assistant", "x")), topic=name)
        for n, name in enumerate(topics)
    ]
    assert {one.split_key for one in made} == set(topics)


def test_held_out_records_are_grouped_by_category_or_source(tmp_path: Path) -> None:
    names = [f"What is {n}?" for n in range(60)]
    a = write(tmp_path / "a.jsonl", names, category="naming")
    b = write(tmp_path / "b.jsonl", [f"{name}?" for name in names])
    assert load(a=a, mine=b).heldout.keys() == {"naming", "mine"}


def test_max_records_limits_the_records(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [f"What is {n}?" for n in range(50)])
    sources = {"a": InstructionSource(files=(path,), max_records=7)}
    found = load_conversations(InstructionConfig(heldout_fraction=0.5, sources=sources))
    taken = questions(found.train) | questions(found.heldout)
    assert taken == {f"What is {n}?" for n in range(7)}


def test_missing_sources_files_and_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data\.sources.*--files"):
        load()
    with pytest.raises(ValueError, match=r"'mine' has no files.*data\.sources\.mine\.files"):
        load_conversations(InstructionConfig(sources={"mine": InstructionSource()}))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"empty.jsonl.*no record"):
        load(a=str(empty))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heldout_fraction": 1.0}, "data.heldout_fraction is 1.0"),
        ({"epochs": -1.0}, "data.epochs is -1.0"),
        ({"seed": -1}, "data.seed is -1"),
        ({"sources": {"a": InstructionSource(weight=0)}}, "weights of data.sources are 0"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstructionConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hub", "repo": "dolly"}, "USER/NAME"),
        ({"kind": "generator", "files": ("a",)}, "files is .* no effect"),
    ],
)
def test_an_invalid_source_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstructionSource(**change)  # type: ignore[arg-type]


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
def test_each_unused_key_is_reported_once(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS[kind] * 3)))
    sources = {"mine": InstructionSource(files=(str(path),))}
    config = InstructionConfig(kind=kind, heldout_fraction=0, sources=sources)
    load_records = load_conversations if kind == "instructions" else load_preferences
    (message,) = load_records(config).warnings
    start, _, keys = message.partition(": ")
    assert start == "Keys that are not used"
    assert {key.split(" (")[0] for key in keys.split(", ")} == NAMED[kind]
    assert all(key.endswith("(3 records)") for key in keys.split(", "))


def test_used_keys_are_not_reported(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"instruction": "a", "context": "b", "response": "c"}))
    assert load(0, a=str(path)).warnings == []
