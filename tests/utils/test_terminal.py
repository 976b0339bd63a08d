"""Text from models, data and file names cannot steer a terminal."""

import ast
import io
from pathlib import Path

import pytest

import gnano
from gnano.utils import terminal
from gnano.utils.progress import StatusLine

STEERING = "a\x1b]0;title\x07\x1b[2J\r\x08b\x7f\x9b31m\tc\n"
SHOWN = "a�]0;title��[2J��b��31m\tc\n"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_the_text_as_it_is() -> None:
    assert terminal.replace_controls(STEERING, Screen()) == SHOWN
    assert terminal.replace_controls(STEERING, io.StringIO()) == STEERING


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_both_functions_that_print_go_through_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    screen = Screen()
    monkeypatch.setattr(f"sys.{name}", screen)
    (terminal.echo if name == "stdout" else terminal.echo_stderr)(STEERING, end="")
    assert screen.getvalue() == SHOWN


def test_nothing_in_the_package_prints_in_another_way() -> None:
    """Then no text reaches a terminal as it is, and no note ends what it tells of."""
    package = Path(gnano.__file__).parent
    assert "echo(" in (package / "cli" / "generate.py").read_text("utf-8")
    others = {"live.py", "utils/streams.py", "train/watching/tracker_process.py"}
    for file in sorted(package.rglob("*.py")):
        if (name := file.relative_to(package).as_posix()) in others:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.stdout.write", "sys.stderr.write"), (
                    f"{name}:{node.lineno} {called}: use utils.terminal's echo or note"
                )


@pytest.mark.parametrize(
    ("environment", "escapes", "color"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "unknown"}, False, False),
    ],
)
def test_a_terminal_gets_only_the_escapes_that_it_understands(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], escapes: bool, color: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.supports_escapes(Screen()) is escapes
    assert terminal.supports_color(Screen()) is color
    assert not terminal.supports_escapes(io.StringIO())
    screen = Screen()
    line = StatusLine(screen)
    line.update("step 1\nof 2")
    line.print("a note")
    line.close()
    assert ("\x1b" in screen.getvalue()) is escapes
    assert "a note\n" in screen.getvalue()


def test_a_live_line_shows_no_control_characters_of_a_file_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    line = StatusLine(screen)
    line.update("reading a\x1b[8mb")
    line.print("read a\x1b[8mb")
    assert "\x1b[8m" not in screen.getvalue()


def test_a_live_line_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    line = StatusLine(closed)
    closed.close()
    for one in (StatusLine(Broken()), line):
        one.update("step 1", important=True)
        one.print("a note")
        one.close()
    monkeypatch.setattr("sys.stderr", None)
    StatusLine().update("step 1", important=True)
    terminal.echo_stderr("a note")
