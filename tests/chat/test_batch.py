"""Through pipes, as another program uses it: answers alone, and exit codes that can be trusted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.chat.conftest import UNICODE

from gnano.cli import main

CHAT = [sys.executable, "-m", "gnano", "chat"]


@pytest.fixture
def folder(make_engine, save):
    return save(make_engine(UNICODE))


def piped(given: str | bytes, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CHAT, *map(str, arguments), "--temperature", "0"],
        input=given if isinstance(given, bytes) else given.encode(),
        capture_output=True,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_each_line_is_a_question_and_only_answers_come_out(folder):
    done = piped("one\\\n\n/stats\ntwo", folder)
    assert (done.returncode, done.stdout) == (0, f"{UNICODE}\n{UNICODE}\n")
    assert "answers    1, " in done.stderr and "tokens · " not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_lines_end_where_a_file_s_lines_end(folder):
    """The mark in front of the first is no part of it: /stats is a command."""
    done = piped("\ufeff/stats\r\none\u2028two\x85three\ffour\r\n/stats\r\n".encode(), folder)
    assert (done.returncode, done.stdout) == (0, f"{UNICODE}\n")
    assert "answers    0, " in done.stderr and "answers    1, " in done.stderr


def test_a_line_that_cannot_be_answered_is_named_and_the_others_are(folder):
    done = piped("a" * 300 + "\n/no\ntwo\n", folder)
    assert (done.returncode, done.stdout) == (2, f"{UNICODE}\n")
    long, unknown = done.stderr.splitlines()
    assert long.startswith("gnano: line 1: The question has")
    assert unknown.startswith("gnano: line 2: There is no command /no")


def test_bytes_that_are_no_text_end_nothing(folder):
    done = piped(b"caf\xe9?\n", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{UNICODE}\n", "")


def test_one_question_on_the_command_line(folder):
    done = piped("not read\n", folder, "--prompt", "well?")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{UNICODE}\n", "")


def test_it_may_be_kept_in_fewer_bits(folder):
    done = piped("", folder, "--prompt", "one", "--dtype", "bf16", "--quant", "int8")
    assert (done.returncode, done.stdout) == (0, f"{UNICODE}\n")


def test_a_reader_that_has_seen_enough_ends_it_quietly(folder):
    process = subprocess.Popen(
        [*CHAT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"two\n" * 3)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_checkpoint_that_was_not_tuned_is_asked_as_alpaca_and_it_says_so(make_engine, save):
    folder = save(make_engine("yes", block_size=400))
    for name in ("template.json", "chat_template.jinja"):
        (folder / name).unlink()
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "chat_template": None}
    path.write_text(json.dumps(config))
    done = piped("well?\n", folder)
    assert (done.returncode, done.stdout) == (0, "yes\n")
    assert len(done.stderr.splitlines()) == 1 and "was not tuned" in done.stderr
    assert piped("well?\n", folder, "--format", "plain").stderr == ""


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
    with pytest.raises(SystemExit) as left:
        main(["chat", str(folder), *options])
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == ""
    assert reason in said.err and said.err.startswith("gnano: ") and said.err.count("\n") == 1


def test_a_folder_without_a_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, reason in ((tmp_path, "holds no checkpoint"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SystemExit) as left:
            main(["chat", str(folder)])
        assert left.value.code == 2 and reason in capsys.readouterr().err
