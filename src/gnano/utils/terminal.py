r"""Output on a terminal, in a pipe or a log, and work whose failure must not end a command.

`echo` prints a command's result and raises where it cannot be written. `echo_stderr` prints
information to stderr and never raises. `StatusLine` shows the progress of long work: rewritten in
place in a terminal, printed sparsely in a log. None of them lets text from a model, a dataset or a
file name control a terminal: control characters are replaced there. A pipe or a file gets the text
unchanged.

`prepare_streams` and `drop_failed_writes` make the standard streams safe to write to:

    closed (`<&-`, `>&-`, `2>&-`)           is replaced by /dev/null, under its own descriptor
    a character the encoding does not have  is written as JSON escapes it, \u00e9
    a write that fails                      is dropped on a stream that only informs

Without this, a progress line on a full disk or in a closed terminal would end the work it reports
on, and Python's final flush would turn the exit code of finished work into 120.
"""

import codecs
import io
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# all but line feed and tab, for `str.translate`
CONTROL_CHARACTERS = dict.fromkeys(
    {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)
ESCAPE_HANDLER = "gnano.json-escape"
STDIN_ENCODING = "utf-8-sig"  # a byte order mark is not part of the text
LOG_INTERVAL = 15.0  # seconds between lines where the output is not a terminal


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


def echo(text: str = "", end: str = "\n", keep_controls: bool = False) -> None:
    """Print to stdout and flush; `keep_controls` is for colors, in text that is our own.

    Raises OSError, naming standard output, where that fails; stdout's buffer is then discarded,
    because Python would try to write it again at exit.
    """
    if sys.stdout.isatty() and not keep_controls:
        text = text.translate(CONTROL_CHARACTERS)
    text += end
    try:
        if text:  # a full disk refuses even an empty write
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise OSError(error.errno, error.strerror, "standard output") from None


def echo_stderr(text: str, end: str = "\n") -> None:
    """Print to stderr; text that cannot be written there is dropped."""
    if sys.stderr is not None:
        text = text.translate(CONTROL_CHARACTERS) if sys.stderr.isatty() else text
        with suppress(OSError, ValueError):  # a full disk, a closed stream
            sys.stderr.write(text + end)
            sys.stderr.flush()


def supports_escapes(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def supports_color(stream: TextIO) -> bool:
    """Return whether a stream is a color terminal and NO_COLOR (https://no-color.org) is unset."""
    return supports_escapes(stream) and not os.environ.get("NO_COLOR")


class StatusLine:
    """One or several lines that show progress; where they cannot be written, nothing happens."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.is_terminal = supports_escapes(self.stream)
        self.last_shown = -LOG_INTERVAL
        self.height = 0  # lines on the terminal that the next ones replace

    def update(self, status: object, important: bool = False) -> None:
        """Show the status's text instead; a log gets one every 15 s, or if it is important."""
        now = time.monotonic()
        lines = str(status).translate(CONTROL_CHARACTERS).split("\n")
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            # each line is cleared to its end, then everything below them
            body = "\n".join(f"{truncate_parts(line, width)}\x1b[K" for line in lines)
            self.clear(body)
            self.height = len(lines)
        elif important or now - self.last_shown >= LOG_INTERVAL:
            self._write(" · ".join(line.strip() for line in lines) + "\n")
        else:
            return
        self.last_shown = now

    def clear(self, body: str = "") -> None:
        """Remove the lines from the terminal, so that other output takes their place."""
        up = f"\x1b[{self.height - 1}A" if self.height > 1 else ""
        if self.height or body:
            self._write(f"\r{up}{body}\x1b[J")
        self.height = 0

    def print(self, text: str) -> None:
        """Print a line that is not replaced."""
        self.close()
        self._write(text.translate(CONTROL_CHARACTERS) + "\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self.stream.write(text)
            self.stream.flush()

    def close(self) -> None:
        """End the line, so that the next output starts on a new one."""
        if self.height:
            self._write("\n")
            self.height = 0


def truncate_parts(line: str, width: int) -> str:
    """Drop " · "-separated parts until the line fits: a truncated number would mislead."""
    while len(line) > width and " · " in line:
        line = line.rsplit(" · ", 1)[0]
    return line[:width]


def prepare_streams() -> None:
    """Open closed standard streams; let stdin decode and stdout and stderr encode any text.

    Lines of stdin are UTF-8, where invalid bytes become U+FFFD.
    """
    codecs.register_error(ESCAPE_HANDLER, _escape_error)
    # a file gets the lowest free descriptor: 0, 1 or 2 where that is closed
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE_HANDLER)
    # once: it cannot be changed after the first line was read
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.encoding != STDIN_ENCODING:
        sys.stdin.reconfigure(encoding=STDIN_ENCODING, errors="replace", newline=None)


def drop_failed_writes(name: str) -> None:
    """Make writes to sys.stdout or sys.stderr (by name) never raise, unless it was replaced."""
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
        return
    with suppress(OSError):
        stream.flush()
    raw = _LossyFile(stream.fileno(), "w", closefd=False)
    lossy = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, lossy)


class _LossyFile(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        written = None
        with suppress(OSError):
            written = super().write(data)
        return len(memoryview(data)) if written is None else written


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
