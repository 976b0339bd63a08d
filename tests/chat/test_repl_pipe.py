"""`gnano chat` through pipes: answers on stdout, notes on stderr, and exit codes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.chat.conftest import UNICODE
from tests.chat.terminal import ForkServer

from gnano.cli import main

pytestmark = pytest.mark.slow  # most tests start a process


@pytest.fixture
def folder(make_engine, save):
    return save(make_engine(UNICODE))


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run_piped(server: ForkServer, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs `gnano chat` with a text as standard input."""

    def run_piped(given: str | bytes, *arguments: object) -> Result:
        files = [tmp_path / name for name in ("in", "out", "err")]
        files[0].write_bytes(given if isinstance(given, bytes) else given.encode())
        how = (os.O_RDONLY, *(os.O_WRONLY | os.O_CREAT | os.O_TRUNC,) * 2)
        streams = [os.open(file, flags) for file, flags in zip(files, how, strict=True)]
        command = ["chat", *map(str, arguments), "--temperature", "0"]
        code = server.wait(server.start(command, (streams[0], streams[1], streams[2])))
        return Result(code, files[1].read_text("utf-8"), files[2].read_text("utf-8"))

    return run_piped


def test_each_line_is_a_question_and_stdout_has_only_answers(run_piped, folder):
    done = run_piped("one\\\n\n/stats\ntwo", folder)
    assert (done.code, done.out) == (0, f"{UNICODE}\n{UNICODE}\n")
    assert "answers    1, " in done.err and "tokens · " not in done.err
    assert "\x1b" not in done.out + done.err


def test_lines_end_only_at_line_feeds(run_piped, folder):
    """A byte order mark is not part of the first line: /stats is a command."""
    done = run_piped("\ufeff/stats\r\none\u2028two\x85three\ffour\r\n/stats\r\n".encode(), folder)
    assert (done.code, done.out) == (0, f"{UNICODE}\n")
    assert "answers    0, " in done.err and "answers    1, " in done.err


def test_a_line_that_cannot_be_answered_is_reported_and_the_others_are_answered(run_piped, folder):
    done = run_piped("a" * 300 + "\n/no\ntwo\n", folder)
    assert (done.code, done.out) == (2, f"{UNICODE}\n")
    long, unknown = done.err.splitlines()
    assert long.startswith("gnano: line 1: The question has")
    assert unknown.startswith("gnano: line 2: There is no command /no")


def test_invalid_utf8_is_accepted(run_piped, folder):
    done = run_piped(b"caf\xe9?\n", folder)
    assert (done.code, done.out, done.err) == (0, f"{UNICODE}\n", "")


def test_one_question_on_the_command_line(run_piped, folder):
    done = run_piped("not read\n", folder, "--prompt", "well?")
    assert (done.code, done.out, done.err) == (0, f"{UNICODE}\n", "")


def test_a_quantized_model_answers(run_piped, folder):
    done = run_piped("", folder, "--prompt", "one", "--dtype", "bf16", "--quant", "int8")
    assert (done.code, done.out) == (0, f"{UNICODE}\n")


def test_a_closed_pipe_ends_the_program_without_a_message(server, folder, tmp_path):
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    stderr = os.open(tmp_path / "err", os.O_WRONLY | os.O_CREAT)
    process = server.start(["chat", str(folder)], (stdin, stdout, stderr))
    os.write(to_stdin, b"one\n")
    assert os.read(from_stdout, 100)
    os.close(from_stdout)
    os.write(to_stdin, b"two\n" * 3)
    os.close(to_stdin)
    assert server.wait(process) == 141
    assert (tmp_path / "err").read_text() == ""


def test_an_untuned_checkpoint_uses_alpaca_with_a_note(run_piped, make_engine, save):
    folder = save(make_engine("yes", block_size=400))
    for name in ("template.json", "chat_template.jinja"):
        (folder / name).unlink()
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "chat_template": None}
    path.write_text(json.dumps(config))
    done = run_piped("well?\n", folder)
    assert (done.code, done.out) == (0, "yes\n")
    assert len(done.err.splitlines()) == 1 and "was not tuned" in done.err
    assert run_piped("well?\n", folder, "--format", "plain").err == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--format", "foo"], "No template is called 'foo'"),
        (["--temperature", "-1"], "temperature is -1"),
        (["-n", "0"], "tokens is 0"),
        (["--prompt", " "], "The question is empty"),
        (["--prompt", "a" * 300], "shorten it"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["chat", str(folder), *options])
    output = capsys.readouterr()
    assert exit_info.value.code == 2 and output.out == ""
    assert reason in output.err and output.err.startswith("gnano: ") and output.err.count("\n") == 1


def test_a_folder_without_a_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, reason in ((tmp_path, "holds no checkpoint"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SystemExit) as exit_info:
            main(["chat", str(folder)])
        assert exit_info.value.code == 2 and reason in capsys.readouterr().err
