"""Writes to stderr never raise, closed streams are reopened, and every text can be encoded."""

import json
import os
import subprocess
import sys

import pytest

PREPARED = """
import sys
from gnano.utils.streams import drop_failed_writes, prepare_streams
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
