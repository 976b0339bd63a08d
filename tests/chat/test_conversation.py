"""What is remembered, what is forgotten, and what a mistake leaves as it was."""

from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
from tests.chat.conftest import LIKELIEST, TEMPLATE, UNICODE, Listening

from gnano.chat.conversation import ChatSettings
from gnano.chat.conversation import ChatSession, ConversationHistory, Exchange
from gnano.config.inference_config import SamplingParams
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, encode_prompt
from gnano.data.sft.conversations import Turn


@pytest.fixture
def session(make_engine):
    return ChatSession(make_engine("yes"), TEMPLATE, LIKELIEST)


def say(session: ChatSession, text: str) -> str:
    return "".join(session.ask(text))


def heard(session: ChatSession) -> list[list[int]]:
    """The ids of all prompts so far."""
    assert isinstance(session.engine, Listening)
    return session.engine.heard


def decoded(session: ChatSession) -> list[str]:
    return [session.engine.tokenizer.decode(ids) for ids in heard(session)]


def test_the_conversation_goes_on_as_it_was_trained(make_engine):
    session = ChatSession(make_engine("yes"), TEMPLATE, LIKELIEST, system_prompt="be brief")
    assert say(session, " one ") == "yes" and say(session, "two") == "yes"
    told = (Turn("system", "be brief"), Turn("user", "one"))
    turns = (*told, Turn("assistant", "yes"), Turn("user", "two"))
    tokenizer = session.engine.tokenizer
    assert heard(session) == [
        encode_prompt(told, TEMPLATE, tokenizer),
        encode_prompt(turns, TEMPLATE, tokenizer),
    ]


def test_text_of_many_bytes_comes_whole_and_no_piece_breaks_a_character(make_engine):
    session = ChatSession(make_engine(UNICODE), TEMPLATE, LIKELIEST)
    pieces = list(session.ask("what?"))
    assert "".join(pieces) == UNICODE and len(pieces) > 6
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_old_exchanges_fall_out_whole_and_the_system_s_text_stays(make_engine):
    engine = make_engine("yes", block_size=200)
    session = ChatSession(engine, TEMPLATE, replace(LIKELIEST, tokens=40), system_prompt="be brief")
    questions = [f"{number:02}{'abcdefghij' * 2}" for number in range(12)]
    fell = 0
    for number, question in enumerate(questions):
        assert say(session, question) == "yes"
        fell += session.answer_stats[-1].exchanges_dropped
        prompt = decoded(session)[-1]
        assert len(heard(session)[-1]) <= 200 - 40
        assert prompt.startswith("be brief\n\n[Ask4] ")
        assert [q for q in questions if q in prompt] == questions[fell : number + 1]
        assert prompt.count("[Ask4]") == number + 1 - fell
    assert session.num_dropped == fell > 5
    assert len(session.history.exchanges) == 12, "what the model forgot can still be saved"


def test_a_question_longer_than_the_context_is_refused_and_changes_nothing(session):
    say(session, "one")
    before = (session.history, session.num_dropped, session.last_question)
    with pytest.raises(ValueError, match=r"The question has \d+ tokens, and .* is 128; shorten"):
        session.ask("a" * 200)
    assert (session.history, session.num_dropped, session.last_question) == before
    assert say(session, "two") == "yes"


def test_an_answer_ends_where_the_context_does(make_engine):
    session = ChatSession(make_engine("abcdefgh", endless=True), TEMPLATE, LIKELIEST)
    say(session, "a" * 100)
    full = session.answer_stats[-1]
    assert full.prompt_tokens + full.tokens == 128 + 1
    session.settings = session.settings.with_value("tokens", "5")
    assert say(session, "go on") == "abcde"
    endings = [speech.finish_reason for speech in session.answer_stats]
    assert endings == ["cut, the context is full", "cut at its limit"]


def test_a_stopped_answer_is_remembered_as_far_as_it_was_said(make_engine):
    session = ChatSession(make_engine("abcdefgh", endless=True), TEMPLATE, LIKELIEST)
    with closing(session.ask("go on")) as reply:
        assert "".join(islice(reply, 11)) == "abcdefghabc"
    assert session.history.exchanges == (Exchange("go on", "abcdefghabc", was_stopped=True),)
    say(session, "and?")
    assert "\nabcdefghabc<|endoftext|>\n\n[Ask4] and?" in session.engine.tokenizer.decode(
        heard(session)[-1], show_end_of_text=True
    )


def test_an_answer_that_says_nothing_is_not_remembered_and_may_be_asked_for_again(session):
    with closing(session.ask("well?")):
        pass
    assert session.history.exchanges == ()
    assert "".join(session.regenerate()) == "yes"
    assert session.history.exchanges == (Exchange("well?", "yes"),)


def test_another_answer_takes_the_place_of_the_one_before(make_engine):
    settings = ChatSettings(sampling=SamplingParams(temperature=1, seed=3), tokens=12)
    session = ChatSession(make_engine(), TEMPLATE, settings)
    first = [say(session, "one"), say(session, "two")]
    other = "".join(session.regenerate())
    assert other != first[1]
    assert [exchange.answer for exchange in session.history.exchanges] == [first[0], other]
    assert heard(session)[1] == heard(session)[2]
    same = ChatSession(make_engine(), TEMPLATE, settings)
    assert [say(same, "one"), say(same, "two"), "".join(same.regenerate())] == [*first, other]


def test_there_is_nothing_to_answer_again_at_the_beginning(session):
    with pytest.raises(ValueError, match="no question"):
        session.regenerate()
    say(session, "one")
    session.reset()
    with pytest.raises(ValueError, match="no question"):
        session.regenerate()


def test_an_answer_ends_before_a_question_that_the_model_asks_itself(make_engine):
    own = ChatTemplate(user="[Ak4]: {content}\n")
    session = ChatSession(make_engine("so [Ak4]:hy"), own, LIKELIEST)
    assert say(session, "well?") == "so" and session.answer_stats[-1].finish_reason == "by itself"
    short = ChatSession(make_engine("so Q:why"), ChatTemplate(user="Q: {content}\n"), LIKELIEST)
    assert say(short, "well?") == "so Q:why", "a short opening may be part of an answer"


def test_what_is_typed_is_text_and_never_a_control_token(make_engine):
    session = ChatSession(make_engine("yes", block_size=600), ALPACA, LIKELIEST, "<|endoftext|>")
    say(session, "<|endoftext|> \ud83d")
    (ids,) = heard(session)
    assert ids.count(session.engine.tokenizer.end_of_text_id) == 1
    assert decoded(session)[0].count("<|endoftext|>") == 2


def test_a_conversation_that_was_loaded_goes_on(session):
    session.resume(ConversationHistory("be brief", (Exchange("one", "a"), Exchange("two", "b"))))
    assert "".join(session.regenerate()) == "yes"
    assert session.history == ConversationHistory(
        "be brief", (Exchange("one", "a"), Exchange("two", "yes"))
    )
    session.reset()
    assert session.history == ConversationHistory("be brief")
