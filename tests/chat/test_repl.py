"""`gnano chat` in a real terminal."""

import pytest
from tests.chat.conftest import UNICODE, messages
from tests.chat.terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, UP

pytestmark = pytest.mark.slow  # each test starts a process
OPTIONAL_PACKAGES = "prompt_toolkit rich"


@pytest.mark.parametrize("without", ["", OPTIONAL_PACKAGES])
def test_a_question_a_command_and_quit(chat, make_engine, tmp_path, without):
    terminal = chat(make_engine(UNICODE), without=without)
    banner = terminal.ready()
    assert "context 128" in banner and ("auto-g-nano[chat]" in banner) == bool(without)
    terminal.press("what is it?" + ENTER)
    terminal.wait_for(f"{UNICODE}\r\n")
    terminal.wait_for("11 tokens · ")
    terminal.ready()
    terminal.press("/sats" + ENTER)
    terminal.wait_for("did you mean /stats?")
    terminal.ready()
    terminal.press(f"/save {tmp_path}/chat" + ENTER)
    terminal.wait_for("Saved as")
    terminal.ready()
    terminal.press("/quit" + ENTER)
    assert terminal.end() == 0
    assert messages(tmp_path / "chat.json") == [
        {"role": "user", "content": "what is it?"},
        {"role": "assistant", "content": UNICODE},
    ]


@pytest.mark.parametrize("without", ["", OPTIONAL_PACKAGES])
def test_ctrl_c_stops_the_answer_and_twice_at_the_prompt_quits(
    chat, make_engine, tmp_path, without
):
    engine = make_engine("abcdefgh", endless=True, block_size=20_000)
    terminal = chat(engine, "-n", "19000", without=without)
    terminal.ready()
    terminal.press("go on" + ENTER)
    terminal.wait_for("abcdefghabcdefgh")
    terminal.press(CTRL_C)
    terminal.wait_for("· stopped")
    terminal.ready()
    terminal.press(f"/save {tmp_path}/chat.json" + ENTER)
    terminal.wait_for("Saved")
    terminal.ready()
    terminal.press(CTRL_C)
    terminal.wait_for("Press Ctrl-C again")
    terminal.ready()
    terminal.press(CTRL_C)
    assert terminal.end() == 0
    _, answer = messages(tmp_path / "chat.json")
    assert answer["stopped"] is True
    assert len(str(answer["content"])) < 19_000 and str(answer["content"]) in "abcdefgh" * 2_500
    assert "Traceback" not in terminal.screen


def test_ctrl_c_clears_a_typed_line(chat, make_engine):
    engine = make_engine("yes")
    terminal = chat(engine)
    terminal.ready()
    for _ in range(3):
        terminal.press("not this")
        terminal.wait_for("not this")
        terminal.press(CTRL_C)
        terminal.ready()
    terminal.press("well?" + ENTER)
    terminal.wait_for("yes\r\n")
    terminal.ready()
    terminal.press("/stats" + ENTER)
    assert "answers    1, 3 tokens" in terminal.ready()
    terminal.press(CTRL_D)
    assert terminal.end() == 0


@pytest.mark.parametrize(
    ("keys", "without"),
    [
        (f"one{ALT_ENTER}two{ENTER}", ""),
        (f"one\\{ENTER}two{ENTER}", ""),
        ("one\\\rtwo\r", OPTIONAL_PACKAGES),
    ],
)
def test_a_question_may_have_several_lines(chat, make_engine, tmp_path, keys, without):
    terminal = chat(make_engine("yes"), without=without)
    terminal.ready()
    terminal.press(keys)
    terminal.wait_for("yes\r\n")
    terminal.ready()
    terminal.press(f"/save {tmp_path}/chat.json" + ENTER)
    terminal.wait_for("Saved")
    assert messages(tmp_path / "chat.json")[0]["content"] == "one\ntwo"


def test_typed_texts_are_kept_for_the_next_session_in_a_private_file(chat, make_engine, tmp_path):
    for keys in ("tell me" + ENTER, UP + ENTER):
        terminal = chat(make_engine("yes"))
        terminal.ready()
        terminal.press(keys)
        assert "tell me" in terminal.wait_for("yes\r\n")
        terminal.ready()
        terminal.press(CTRL_D)
        assert terminal.end() == 0
    (file,) = (tmp_path / "state").rglob("chat_history")
    assert file.stat().st_mode & 0o077 == 0


def test_a_state_folder_that_cannot_be_written_is_ignored(chat, make_engine, tmp_path):
    (tmp_path / "file").write_text("")
    terminal = chat(make_engine("yes"), XDG_STATE_HOME=str(tmp_path / "file"))
    terminal.ready()
    terminal.press("well?" + ENTER)
    terminal.wait_for("yes\r\n")
    terminal.ready()
    terminal.press(CTRL_D)
    assert terminal.end() == 0 and "Traceback" not in terminal.screen


def test_an_answer_cannot_change_the_terminal(chat, make_engine):
    terminal = chat(make_engine("a\x1b[2Jz"))
    terminal.ready()
    terminal.press("well?" + ENTER)
    terminal.wait_for("a\N{REPLACEMENT CHARACTER}[2Jz")
    assert b"\x1b[2J" not in terminal.raw  # which would have cleared the screen


def test_dropped_questions_are_reported(chat, make_engine):
    terminal = chat(make_engine("yes"))
    terminal.ready()
    terminal.press("a" * 40 + ENTER)
    assert "Dropped" not in terminal.wait_for("yes\r\n")
    terminal.ready()
    terminal.press("b" * 40 + ENTER)
    assert "Dropped the oldest 1 question" in terminal.wait_for("yes\r\n")
    terminal.ready()
    terminal.press("c" * 400 + ENTER)
    terminal.wait_for("the model's context is 128; shorten it.")
    terminal.ready()
    terminal.press("d" * 40 + ENTER)
    terminal.wait_for("yes\r\n")
