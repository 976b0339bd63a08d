"""Slash commands."""

import pytest
from tests.chat.conftest import GREEDY, TEMPLATE

from gnano.chat.conversation import ChatSession, ConversationHistory
from gnano.chat.repl import COMMANDS, run_line


@pytest.fixture
def session(make_engine):
    return ChatSession(make_engine("yes"), TEMPLATE, GREEDY)


def respond(line: str, session: ChatSession) -> str:
    result = run_line(line, session)
    return result if isinstance(result, str) else "".join(result)


def test_two_slashes_send_text_that_starts_with_one(session):
    assert respond("//help me", session) == "yes"
    assert session.history.exchanges[0].question == "/help me"


def test_help_lists_every_command_and_each_works(session, tmp_path):
    listed = respond("/help", session)
    for name in COMMANDS:
        assert f"\n/{name}" in f"\n{listed}"
        if name == "quit":
            with pytest.raises(EOFError):
                respond("/quit", session)
        else:
            respond("well?", session)
            rest = tmp_path / "chat" if COMMANDS[name][0] == "FILE" else ""
            assert respond(f"/{name} {rest}", session)


@pytest.mark.parametrize(
    ("line", "nearest"), [("/rest", "reset"), ("/", ""), ("/qiut", "quit"), ("/sav x", "save")]
)
def test_the_nearest_command_is_suggested(session, line, nearest):
    with pytest.raises(ValueError, match=f"did you mean /{nearest}"):
        respond(line, session)


@pytest.mark.parametrize("line", ["/save", "/load", "/set temperature"])
def test_a_missing_argument_is_reported(session, line):
    with pytest.raises(ValueError, match=f"{line} needs"):
        respond(line, session)


def test_a_mistake_in_a_setting_changes_nothing(session):
    before = session.settings
    with pytest.raises(ValueError, match="must be more than 0 and at most 1"):
        respond("/set top-p 7", session)
    assert session.settings == before
    assert respond("/set top-p 0.7", session) == "top-p 0.7"
    assert session.settings.sampling.top_p == 0.7


def test_the_system_prompt_may_have_several_lines_and_be_removed(session):
    respond("/system be brief\nand kind", session)
    assert session.history == ConversationHistory("be brief\nand kind")
    respond("/system", session)
    assert session.history == ConversationHistory("")


def test_stats_show_totals(session):
    respond("one", session)
    respond("two", session)
    assert "answers    2, 6 tokens" in respond("/stats", session)
