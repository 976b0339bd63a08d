"""The prompts, history and endings of a conversation."""

from contextlib import closing
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.chat.conftest import GREEDY, TEMPLATE, UNICODE, RecordingEngine

from gnano.chat.conversation import ChatSettings, ConversationHistory, Exchange
from gnano.chat.repl import ChatSession
from gnano.data.sft.chat_template import ALPACA, ChatTemplate
from gnano.data.sft.conversations import Turn
from gnano.data.sft.encoding import encode_prompt


@pytest.fixture
def session(make_engine):
    return ChatSession(make_engine("yes"), TEMPLATE, GREEDY)


def ask(session: ChatSession, text: str) -> str:
    return "".join(session.ask(text))


def prompts(session: ChatSession) -> list[list[int]]:
    assert isinstance(session.engine, RecordingEngine)
    return session.engine.prompts


def decoded(session: ChatSession) -> list[str]:
    return [session.engine.tokenizer.decode(ids) for ids in prompts(session)]


def test_prompts_have_the_format_of_training(make_engine):
    session = ChatSession(make_engine("yes"), TEMPLATE, GREEDY, system_prompt="be brief")
    assert ask(session, " one ") == "yes" and ask(session, "two") == "yes"
    first_turns = (Turn("system", "be brief"), Turn("user", "one"))
    turns = (*first_turns, Turn("assistant", "yes"), Turn("user", "two"))
    tokenizer = session.engine.tokenizer
    assert prompts(session) == [
        encode_prompt(first_turns, TEMPLATE, tokenizer),
        encode_prompt(turns, TEMPLATE, tokenizer),
    ]


def test_no_piece_of_an_answer_breaks_a_character(make_engine):
    session = ChatSession(make_engine(UNICODE), TEMPLATE, GREEDY)
    pieces = list(session.ask("what?"))
    assert "".join(pieces) == UNICODE and len(pieces) > 6
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.text(" \n\tab🙂")))
def test_pieces_join_to_the_text_without_white_space_around_it(session, pieces):
    sequence = SimpleNamespace(output_ids=[], finish_reason=None)
    session.engine.stream = lambda *_, **__: ((piece, sequence) for piece in pieces)
    assert ask(session, "what?") == "".join(pieces).strip() == session.answer_stats[-1].answer


def test_old_exchanges_are_dropped_and_the_system_prompt_stays(make_engine):
    engine = make_engine("yes", block_size=200)
    session = ChatSession(engine, TEMPLATE, replace(GREEDY, tokens=40), system_prompt="be brief")
    questions = [f"{number:02}{'abcdefghij' * 2}" for number in range(12)]
    dropped = 0
    for number, question in enumerate(questions):
        assert ask(session, question) == "yes"
        dropped += session.answer_stats[-1].exchanges_dropped
        prompt = decoded(session)[-1]
        assert len(prompts(session)[-1]) <= 200 - 40
        assert prompt.startswith("be brief\n\n[Ask4] ")
        assert [q for q in questions if q in prompt] == questions[dropped : number + 1]
        assert prompt.count("[Ask4]") == number + 1 - dropped
    assert session.num_dropped == dropped > 5
    assert len(session.history.exchanges) == 12, "dropped exchanges can still be saved"


def test_a_question_longer_than_the_context_is_refused(session):
    ask(session, "one")
    before = (session.history, session.num_dropped, session.last_question)
    with pytest.raises(ValueError, match=r"The question has \d+ tokens, and .* is 128; shorten"):
        session.ask("a" * 200)
    assert (session.history, session.num_dropped, session.last_question) == before
    assert ask(session, "two") == "yes"


def test_an_answer_ends_at_the_end_of_the_context_or_at_its_limit(make_engine):
    session = ChatSession(make_engine("abcdefgh", endless=True), TEMPLATE, GREEDY)
    ask(session, "a" * 100)
    full = session.answer_stats[-1]
    assert full.prompt_tokens + full.tokens == 128 + 1
    session.settings = session.settings.with_value("tokens", "5")
    assert ask(session, "go on") == "abcde"
    endings = [stats.finish_note for stats in session.answer_stats]
    assert endings == ["context full", "token limit reached"]


def test_a_stopped_answer_is_kept_up_to_where_it_stopped(make_engine):
    session = ChatSession(make_engine("abcdefgh", endless=True), TEMPLATE, GREEDY)
    with closing(session.ask("go on")) as reply:
        assert "".join(islice(reply, 11)) == "abcdefghabc"
    assert session.history.exchanges == (Exchange("go on", "abcdefghabc", was_stopped=True),)
    ask(session, "and?")
    assert "\nabcdefghabc<|endoftext|>\n\n[Ask4] and?" in session.engine.tokenizer.decode(
        prompts(session)[-1], show_end_of_text=True
    )


def test_an_empty_answer_is_not_kept_and_can_be_regenerated(session):
    with closing(session.ask("well?")):
        pass
    assert session.history.exchanges == ()
    assert "".join(session.regenerate()) == "yes"
    assert session.history.exchanges == (Exchange("well?", "yes"),)


def test_a_regenerated_answer_replaces_the_previous_one(make_engine):
    chat_settings = ChatSettings(temperature=1, seed=3, tokens=12)
    session = ChatSession(make_engine(), TEMPLATE, chat_settings)
    first = [ask(session, "one"), ask(session, "two")]
    other = "".join(session.regenerate())
    assert other != first[1]
    assert [exchange.answer for exchange in session.history.exchanges] == [first[0], other]
    assert prompts(session)[1] == prompts(session)[2]
    same = ChatSession(make_engine(), TEMPLATE, chat_settings)
    assert [ask(same, "one"), ask(same, "two"), "".join(same.regenerate())] == [*first, other]


def test_a_new_conversation_has_nothing_to_regenerate(session):
    with pytest.raises(ValueError, match="no question"):
        session.regenerate()
    ask(session, "one")
    session.reset()
    with pytest.raises(ValueError, match="no question"):
        session.regenerate()


def test_an_answer_ends_before_a_question_of_the_model_itself(make_engine):
    own = ChatTemplate(user="[Ak4]: {content}\n")
    session = ChatSession(make_engine("so [Ak4]:hy"), own, GREEDY)
    assert ask(session, "well?") == "so" and session.answer_stats[-1].finish_note == ""
    short = ChatSession(make_engine("so Q:why"), ChatTemplate(user="Q: {content}\n"), GREEDY)
    assert ask(short, "well?") == "so Q:why", "a short opening may be part of an answer"


def test_typed_text_never_becomes_a_control_token(make_engine):
    session = ChatSession(make_engine("yes", block_size=600), ALPACA, GREEDY, "<|endoftext|>")
    ask(session, "<|endoftext|> \ud83d")
    (ids,) = prompts(session)
    assert ids.count(session.engine.tokenizer.end_of_text_id) == 1
    assert decoded(session)[0].count("<|endoftext|>") == 2


def test_a_loaded_conversation_is_continued(session):
    session.resume(ConversationHistory("be brief", (Exchange("one", "a"), Exchange("two", "b"))))
    assert "".join(session.regenerate()) == "yes"
    assert session.history == ConversationHistory(
        "be brief", (Exchange("one", "a"), Exchange("two", "yes"))
    )
    session.reset()
    assert session.history == ConversationHistory("be brief")
