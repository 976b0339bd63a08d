"""Slash commands."""

from collections.abc import Callable

import pytest
from tests.chat.conftest import GREEDY, TEMPLATE

from gnano.chat.conversation import ConversationHistory
from gnano.chat.repl import COMMANDS, ChatSession, respond_to_line
from gnano.chat.terminal_chat import ChatOutput


@pytest.fixture
def session(make_engine):
    return ChatSession(make_engine("yes"), TEMPLATE, GREEDY)


@pytest.fixture
def respond(session: ChatSession, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Return a function that returns the note or the answer that a line prints."""

    def respond(line: str) -> str:
        respond_to_line(line, session, ChatOutput())
        printed = capsys.readouterr()
        return (printed.out + printed.err).rstrip("\n")

    return respond


def test_two_slashes_send_text_that_starts_with_one(session, respond):
    assert respond("//help me") == "yes"
    assert session.history.exchanges[0].question == "/help me"


def test_help_lists_every_command_and_each_works(respond, tmp_path):
    listed = respond("/help")
    for name in COMMANDS:
        assert f"\n/{name}" in f"\n{listed}"
        if name == "quit":
            with pytest.raises(EOFError):
                respond("/quit")
        else:
            respond("well?")
            rest = tmp_path / "chat" if COMMANDS[name][0] == "FILE" else ""
            assert respond(f"/{name} {rest}")


@pytest.mark.parametrize(
    ("line", "nearest"), [("/rest", "reset"), ("/", ""), ("/qiut", "quit"), ("/sav x", "save")]
)
def test_the_nearest_command_is_suggested(respond, line, nearest):
    with pytest.raises(ValueError, match=f"did you mean /{nearest}"):
        respond(line)


@pytest.mark.parametrize("line", ["/save", "/load", "/set temperature"])
def test_a_missing_argument_is_reported(respond, line):
    with pytest.raises(ValueError, match=f"{line} needs"):
        respond(line)


def test_a_mistake_in_a_setting_changes_nothing(session, respond):
    before = session.settings
    with pytest.raises(ValueError, match="must be more than 0 and at most 1"):
        respond("/set top-p 7")
    assert session.settings == before
    assert respond("/set top-p 0.7") == "top-p 0.7"
    assert session.settings.top_p == 0.7


def test_the_system_prompt_may_have_several_lines_and_be_removed(session, respond):
    respond("/system be brief\nand kind")
    assert session.history == ConversationHistory("be brief\nand kind")
    respond("/system")
    assert session.history == ConversationHistory("")


def test_stats_show_totals(respond):
    respond("one")
    respond("two")
    assert "answers    2, 6 tokens" in respond("/stats")
