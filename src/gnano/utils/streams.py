"""The standard streams of a process: always there, and able to encode every character.

    closed (`<&-`, `>&-`, `2>&-`)           is /dev/null instead, under its own descriptor
    a character the encoding does not have  is written as JSON escapes it, \\u00e9
    a write that fails                      is dropped on a stream that only informs

Without this a progress line on a full disk, or in a terminal that was closed, ends the work it
reports on, and Python turns the exit code of finished work into 120 when it flushes at the end.
"""

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ESCAPE_HANDLER = "gnano.json-escape"


def prepare_streams() -> None:
    """Open the standard streams that are closed, and let stdout and stderr encode any text."""
    codecs.register_error(ESCAPE_HANDLER, _escape_error)
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    if closed:
        _occupy_descriptors()
        for name in closed:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE_HANDLER)


def drop_failed_writes(name: str) -> None:
    """Make sys.stdout or sys.stderr (by name) a stream whose writes never raise.

    A stream that somebody has put in the place of the process's own is left alone.
    """
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
        return
    with suppress(OSError):
        stream.flush()
    raw = _LossyFile(stream.fileno(), "w", closefd=False)
    forgiving = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, forgiving)


def write_output(text: str = "") -> None:
    """Write text to stdout and flush it.

    Raises OSError, naming standard output, where that fails. What stdout still holds then goes
    nowhere, as Python would try it again at the end.
    """
    try:
        if text:  # a full disk refuses even to write nothing
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise OSError(error.errno, error.strerror, "standard output") from None


def write_or_drop(stream: TextIO, text: str) -> None:
    """Write and flush text that only informs: a stream that fails or is closed drops it."""
    with suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


class _LossyFile(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        written = None
        with suppress(OSError):
            written = super().write(data)
        return len(memoryview(data)) if written is None else written


def _occupy_descriptors() -> None:
    """Put /dev/null under those of 0, 1 and 2 that are closed, for children and later files."""
    null = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2] for at in range(0, len(units), 2))
    return "".join(f"\\u{pair.hex()}" for pair in pairs), error.end
