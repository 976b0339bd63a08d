"""Conversations in files: they load as saved, and no other file is overwritten."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chat.conftest import messages

from gnano.chat.conversation import ConversationHistory, Exchange
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.record_loading import read_record_files

TEXT = st.text(st.characters(exclude_categories=["Cs"])).map(str.strip).filter(bool)
EXCHANGES = st.lists(st.builds(Exchange, TEXT, TEXT, st.booleans()), min_size=1).map(tuple)
ONE = ConversationHistory("", (Exchange("one?", "yes"),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@settings(max_examples=30, deadline=None)
@given(
    history=st.builds(ConversationHistory, st.just("") | TEXT, EXCHANGES),
    name=st.sampled_from(["chat", "chat.json", "chat.jsonl"]),
)
def test_a_saved_conversation_loads_unchanged_and_is_training_data(folder, history, name):
    path = history.save(folder / name)
    assert ConversationHistory.load(path) == history
    (record,) = read_record_files([str(path)], parse_conversation, max_bad_share=0).records
    said = [(turn.role, turn.content) for turn in record.turns if turn.role != "system"]
    assert said == [
        pair
        for exchange in history.exchanges
        for pair in (("user", exchange.question), ("assistant", exchange.answer))
    ]
    assert [t.content for t in record.turns if t.role == "system"] == (
        [history.system_prompt] if history.system_prompt else []
    )


def test_the_context_of_a_foreign_record_is_part_of_the_question(tmp_path):
    path = tmp_path / "dolly.json"
    path.write_text(json.dumps({"instruction": "Why?", "context": "Rain.", "response": "So."}))
    assert ConversationHistory.load(path).exchanges == (Exchange("Why?\n\nRain.", "So."),)


def test_only_conversations_are_overwritten(tmp_path):
    path = ONE.save(tmp_path / "chat")
    longer = ConversationHistory("", (*ONE.exchanges, Exchange("two?", "no")))
    assert longer.save(path) == path and len(messages(path)) == 4
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"other\.json exists .* choose another name\.$"):
        ONE.save(other)
    assert other.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", ["no/chat.json", "chat.txt", "file.json/chat.json"])
def test_a_failed_save_is_one_sentence(tmp_path, name):
    (tmp_path / "file.json").write_text("")
    with pytest.raises(ValueError, match=r"\.$") as refused:
        ONE.save(tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_an_empty_conversation_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="ask a question"):
        ConversationHistory("be brief").save(tmp_path / "chat.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "chat.json"),
        ("{", "not JSON"),
        ("[]", "no record"),
        ('{"messages": []}', "does not end with an answer"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "does not end with an answer"),
        (
            '[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]',
            "2 conversations",
        ),
    ],
)
def test_a_file_without_a_conversation_is_one_sentence(tmp_path, text, reason):
    path = tmp_path / "chat.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"\.$") as refused:
        ConversationHistory.load(path)
    assert reason in str(refused.value) and "\n" not in str(refused.value)
    for missing in (tmp_path, tmp_path / "no"):
        with pytest.raises(ValueError, match="There is no file"):
            ConversationHistory.load(missing)
