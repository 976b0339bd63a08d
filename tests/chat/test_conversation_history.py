"""A conversation in a file: ours comes back as it was, and nobody's file is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chat.conftest import messages

from gnano.chat.conversation import ConversationHistory, Exchange
from gnano.data.sft.conversations import Turn
from gnano.data.sft.record_loading import read_conversation_files

TEXT = st.text(st.characters(exclude_categories=["Cs"])).map(str.strip).filter(bool)
EXCHANGES = st.lists(st.builds(Exchange, TEXT, TEXT, st.booleans()), min_size=1).map(tuple)
ONE = ConversationHistory("", (Exchange("one?", "yes"),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@given(
    history=st.builds(ConversationHistory, st.just("") | TEXT, EXCHANGES),
    name=st.sampled_from(["said", "said.json", "said.jsonl"]),
)
def test_what_is_saved_comes_back_and_is_training_data(folder, history, name):
    path = history.save(folder / name)
    assert ConversationHistory.load(path) == history
    (learned,) = read_conversation_files([str(path)], max_bad_share=0).records
    assert learned.to_turns == history.to_turns()


def test_a_context_of_another_program_s_record_is_part_of_the_question(tmp_path):
    path = tmp_path / "dolly.json"
    path.write_text(json.dumps({"instruction": "Why?", "context": "Rain.", "response": "So."}))
    assert ConversationHistory.load(path).to_turns() == (
        Turn("user", "Why?\n\nRain."),
        Turn("assistant", "So."),
    )


def test_a_saved_conversation_is_replaced_and_nothing_else(tmp_path):
    path = ONE.save(tmp_path / "said")
    longer = ConversationHistory("", (*ONE.exchanges, Exchange("two?", "no")))
    assert longer.save(path) == path and len(messages(path)) == 4
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"other\.json exists .* choose another name\.$"):
        ONE.save(other)
    assert other.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", ["no/said.json", "said.txt", "file.json/said.json"])
def test_where_nothing_can_be_saved_one_sentence_says_so(tmp_path, name):
    (tmp_path / "file.json").write_text("")
    with pytest.raises(ValueError, match=r"\.$") as refused:
        ONE.save(tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_there_is_nothing_to_save_at_the_beginning(tmp_path):
    with pytest.raises(ValueError, match="ask something first"):
        ConversationHistory("be brief").save(tmp_path / "said.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "said.json"),
        ("{", "not JSON"),
        ("[]", "no record"),
        ('{"messages": []}', "does not end with an answer"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "does not end with an answer"),
        ('[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]', "2 conv"),
    ],
)
def test_what_is_no_conversation_is_named_in_one_sentence(tmp_path, text, reason):
    path = tmp_path / "said.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"\.$") as refused:
        ConversationHistory.load(path)
    assert reason in str(refused.value) and "\n" not in str(refused.value)
    for missing in (tmp_path, tmp_path / "no"):
        with pytest.raises(ValueError, match="There is no file"):
            ConversationHistory.load(missing)
