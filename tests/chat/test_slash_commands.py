"""A line that begins with a slash does what /help says, and any other is a question."""

import pytest
from tests.chat.conftest import LIKELIEST, TEMPLATE

from gnano.chat.conversation import ChatSession, ConversationHistory
from gnano.chat.repl import COMMANDS, run_line


@pytest.fixture
def session(make_engine):
    return ChatSession(make_engine("yes"), TEMPLATE, LIKELIEST)


def said(line: str, session: ChatSession) -> str:
    result = run_line(line, session)
    return result if isinstance(result, str) else "".join(result)


def test_two_slashes_are_text_that_begins_with_one(session):
    assert said("//help me", session) == "yes"
    assert session.history.exchanges[0].question == "/help me"


def test_help_names_every_command_and_each_is_one(session, tmp_path):
    listed = said("/help", session)
    for name in COMMANDS:
        assert f"\n/{name}" in f"\n{listed}"
        if name == "quit":
            with pytest.raises(EOFError):
                said("/quit", session)
        else:
            said("well?", session)
            rest = tmp_path / "said" if COMMANDS[name][0] == "FILE" else ""
            assert said(f"/{name} {rest}", session)


@pytest.mark.parametrize(
    ("line", "nearest"), [("/rest", "reset"), ("/", ""), ("/qiut", "quit"), ("/sav x", "save")]
)
def test_an_unknown_command_is_answered_with_the_nearest(session, line, nearest):
    with pytest.raises(ValueError, match=f"did you mean /{nearest}"):
        said(line, session)


@pytest.mark.parametrize("line", ["/save", "/load", "/set temperature"])
def test_what_is_missing_is_asked_for(session, line):
    with pytest.raises(ValueError, match=f"{line} needs"):
        said(line, session)


def test_a_mistake_in_a_setting_changes_nothing(session):
    before = session.settings
    with pytest.raises(ValueError, match="must be more than 0 and at most 1"):
        said("/set top-p 7", session)
    assert session.settings == before
    assert said("/set top-p 0.7", session) == "top-p 0.7"
    assert session.settings.sampling.top_p == 0.7


def test_the_system_s_text_may_have_several_lines_and_be_taken_away(session):
    said("/system be brief\nand kind", session)
    assert session.history == ConversationHistory("be brief\nand kind")
    said("/system", session)
    assert session.history == ConversationHistory("")


def test_stats_tell_the_totals(session):
    said("one", session)
    said("two", session)
    assert "answers    2, 6 tokens" in said("/stats", session)
