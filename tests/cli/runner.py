"""Runs the program within the test's process."""

import pytest

from gnano.cli import main

Capture = pytest.CaptureFixture[str]


def run_gnano(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return int(exit_info.value.code or 0), printed.out, printed.err


def output(capsys: Capture, *arguments: object) -> str:
    """Return the stdout of a command that must succeed."""
    code, out, err = run_gnano(capsys, *arguments)
    assert code == 0, err
    return out


def error_output(capsys: Capture, *arguments: object) -> str:
    """Return the stderr of a command that must exit with code 2."""
    code, _, err = run_gnano(capsys, *arguments)
    assert code == 2 and "Traceback" not in err, err
    return err


def error_sentence(capsys: Capture, *arguments: object) -> str:
    """Return the one sentence of a command that must exit with code 2."""
    return one_sentence(error_output(capsys, *arguments))


def one_sentence(err: str) -> str:
    """Return the error of a program's stderr, which must be one sentence."""
    lines = [line for line in err.splitlines() if line.startswith("gnano: ")]
    assert len(lines) == 1 and lines[0].endswith("."), err
    return lines[0]
