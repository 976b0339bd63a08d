"""Printing to terminals and pipes: escape sequences, encodings, failures that are only noted."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gnano
from gnano.utils import terminal
from gnano.utils.terminal import StatusLine, best_effort

UNSAFE_TEXT = "a\x1b]0;title\x07\x1b[2J\r\x08b\x7f\x9b31m\tc\n"
SAFE_TEXT = "a�]0;title��[2J��b��31m\tc\n"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_control_characters_are_replaced_for_terminals_only(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    echo = terminal.echo if name == "stdout" else terminal.echo_stderr
    for stream, shown in ((FakeTerminal(), SAFE_TEXT), (io.StringIO(), UNSAFE_TEXT)):
        monkeypatch.setattr(f"sys.{name}", stream)
        echo(UNSAFE_TEXT, end="")
        assert stream.getvalue() == shown


def test_colors_of_our_own_text_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", stream := FakeTerminal())
    terminal.echo(UNSAFE_TEXT, end="", keep_controls=True)
    assert stream.getvalue() == UNSAFE_TEXT


def test_the_package_prints_through_echo_only() -> None:
    package = Path(gnano.__file__).parent
    assert "echo(" in (package / "cli" / "generate.py").read_text("utf-8")
    for file in sorted(package.rglob("*.py")):
        if (name := file.relative_to(package).as_posix()) == "utils/terminal.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                targets = [ast.unparse(one.value) for one in node.keywords if one.arg == "file"]
                # a worker and its parent print to each other's pipes
                to_pipe = called == "print" and targets not in ([], ["sys.stdout"], ["sys.stderr"])
                assert to_pipe or called not in ("print", "sys.stdout.write", "sys.stderr.write"), (
                    f"{name}:{node.lineno} {called}: use echo or echo_stderr of utils.terminal"
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
def test_escapes_and_color_depend_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], escapes: bool, color: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.supports_escapes(FakeTerminal()) is escapes
    assert terminal.supports_color(FakeTerminal()) is color
    assert not terminal.supports_escapes(io.StringIO())
    terminal_stream = FakeTerminal()
    line = StatusLine(terminal_stream)
    line.update("step 1\nof 2")
    line.print("a note")
    line.close()
    assert ("\x1b" in terminal_stream.getvalue()) is escapes
    assert "a note\n" in terminal_stream.getvalue()


def test_a_cleared_status_line_leaves_its_place_to_other_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal_stream = FakeTerminal()
    line = StatusLine(terminal_stream)
    line.clear()
    assert terminal_stream.getvalue() == ""
    line.update("step 1\nof 2")
    line.clear()
    assert terminal_stream.getvalue().endswith("\r\x1b[1A\x1b[J")
    shown = terminal_stream.getvalue()
    line.close()
    assert terminal_stream.getvalue() == shown


def test_a_status_line_replaces_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal_stream = FakeTerminal()
    line = StatusLine(terminal_stream)
    line.update("reading a\x1b[8mb")
    line.print("read a\x1b[8mb")
    assert "\x1b[8m" not in terminal_stream.getvalue()


def test_a_status_line_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    line = StatusLine(closed)
    closed.close()
    for one in (StatusLine(FullDisk()), line):
        one.update("step 1", important=True)
        one.print("a note")
        one.close()
    monkeypatch.setattr("sys.stderr", None)
    StatusLine().update("step 1", important=True)
    terminal.echo_stderr("a note")


@pytest.mark.parametrize("error", [OSError(28, "full"), ValueError("no"), RuntimeError("x\ny")])
def test_best_effort_reports_a_failure_in_one_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with best_effort("page"):
        raise error
    stderr = capsys.readouterr().err
    assert stderr.startswith("No page (") and stderr.endswith(".\n") and stderr.count("\n") == 1


def test_best_effort_does_not_catch_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), best_effort("page"):
        raise KeyboardInterrupt


PREPARED = """
import sys
from gnano.utils.terminal import drop_failed_writes, prepare_streams
prepare_streams()
{more}
"""


def run(shell: str, program: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program with the redirections of a shell."""
    command = ["bash", "-c", f'"$0" -c "$1" {shell}', sys.executable, PREPARED.format(more=program)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("where", [">/dev/full", "> >(true)", ">&-"])
def test_failed_writes_never_raise_or_change_the_exit_code(stream: str, where: str) -> None:
    program = f"""
drop_failed_writes({stream!r})
for _ in range(3):
    print("x" * 100_000, file=sys.{stream}, flush=True)
print("left unflushed", file=sys.{stream})
sys.exit(7)
"""
    number = {"stdout": 1, "stderr": 2}[stream]
    done = run(f"{number}{where}", program)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")


def test_successful_writes_are_kept() -> None:
    done = run("", "drop_failed_writes('stderr'); print('one', file=sys.stderr)")
    assert done.stderr == b"one\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_keep_their_descriptors_in_children_too(closed: str) -> None:
    program = """
import os, subprocess
assert os.open(os.devnull, os.O_RDONLY) > 2
assert sys.stdin.read() == ""
print("out"); print("err", file=sys.stderr)
for number in range(3):
    subprocess.run([sys.executable, "-c", f"import os; os.fstat({number})"], check=True)
"""
    done = run(f"{closed} {'' if '0' in closed else '</dev/null'}", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_text_can_be_printed_and_json_stays_json(encoding: str) -> None:
    text = "é € 日本 🌍 \udc80"
    done = run("", f"import json; print(json.dumps({text!r}, ensure_ascii=False))",
               PYTHONIOENCODING=encoding)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding)) == text
