"""Printing for people, safe for terminals, and work whose failure must not end a command.

`echo` prints a command's result and raises where it cannot be written. `echo_stderr` prints
information to stderr and never raises. Neither lets text from a model, a dataset or a file name
control a terminal: control characters are replaced there. A pipe or a file gets the text unchanged.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gnano.utils.streams import write_or_drop, write_output

CONTROL_CHARACTERS = dict.fromkeys(
    {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)


@contextmanager
def best_effort(artifact: str) -> Iterator[None]:
    """Report a failure to make the artifact, such as "page", on stderr instead of raising it."""
    try:
        yield
    except Exception as error:  # any failure: the work finished before it stays finished
        if os.environ.get("GNANO_TRACEBACK"):
            echo_stderr(traceback.format_exc())
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        reason = str(error).partition("\n")[0].rstrip(".")
        echo_stderr(f"No {artifact} ({kind}{reason}); everything finished before it is kept.")


def echo(text: str, end: str = "\n") -> None:
    """Print to stdout and flush."""
    write_output(replace_controls(text, sys.stdout) + end)


def echo_stderr(text: str, end: str = "\n") -> None:
    """Print to stderr; text that cannot be written there is dropped."""
    if sys.stderr is not None:
        write_or_drop(sys.stderr, replace_controls(text, sys.stderr) + end)


def replace_controls(text: str, stream: TextIO) -> str:
    """Replace the control characters except line feed and tab in text for a terminal."""
    return text.translate(CONTROL_CHARACTERS) if stream.isatty() else text


def supports_escapes(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def supports_color(stream: TextIO) -> bool:
    """Return whether a stream is a color terminal and NO_COLOR (https://no-color.org) is unset."""
    return supports_escapes(stream) and not os.environ.get("NO_COLOR")
