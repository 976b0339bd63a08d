"""Work that only informs, such as a page, a plot or a comparison: its failure ends nothing else.

Text for people: what a terminal may be sent, and the functions that all printing goes through.

`echo` prints what a command is asked for, and raises where it cannot be written. `note` prints
what only informs, to stderr, and never raises. Neither lets text from a model, a data set or a
file name steer a terminal: its control characters are replaced there. A pipe or a file gets the
text as it is.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gnano.utils.streams import write_or_drop, write_output


@contextmanager
def best_effort(artifact: str) -> Iterator[None]:
    """Note on stderr, in a sentence, why the block could not make `what`, such as "page"."""
    try:
        yield
    except Exception as error:  # whatever it is, the finished work before it stays finished
        if os.environ.get("GNANO_TRACEBACK"):
            echo_stderr(traceback.format_exc())
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        reason = str(error).partition("\n")[0].rstrip(".")
        echo_stderr(f"No {artifact} ({kind}{reason}); all that was finished before it is kept.")


CONTROL_CHARACTERS = dict.fromkeys(
    {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)


def echo(text: str, end: str = "\n") -> None:
    """Print to stdout, at once."""
    write_output(replace_controls(text, sys.stdout) + end)


def echo_stderr(text: str, end: str = "\n") -> None:
    """Print to stderr; what cannot be written there is dropped."""
    if sys.stderr is not None:
        write_or_drop(sys.stderr, replace_controls(text, sys.stderr) + end)


def replace_controls(text: str, stream: TextIO) -> str:
    """The text without control characters but line feed and tab, where it goes to a terminal."""
    return text.translate(CONTROL_CHARACTERS) if stream.isatty() else text


def supports_escapes(stream: TextIO) -> bool:
    """Is it a terminal that understands escape sequences?"""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def supports_color(stream: TextIO) -> bool:
    """Is it a terminal with color, and does the user want it (https://no-color.org)?"""
    return supports_escapes(stream) and not os.environ.get("NO_COLOR")
