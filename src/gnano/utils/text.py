"""The text of files and of standard input, read in the same way by every command.

Text is UTF-8. A byte order mark at its start is no part of it. Lines end in LF, CRLF or CR, and in
nothing else (`str.splitlines` also cuts at form feeds, U+0085 and U+2028); text that was read has
LF alone.
"""

import codecs
import io
import sys
from pathlib import Path
from typing import TextIO


def read_text(path: Path) -> str:
    """The whole text of a file; raises ValueError, naming file and line, where it is not UTF-8."""
    return decode_text(path.read_bytes(), str(path))


def decode_text(content: bytes, name: str) -> str:
    """The text of these bytes of a file; raises ValueError, as `read_text` does."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = normalize_newlines(content[: error.start].decode("latin-1"))
        raise utf8_error(name, content, before.count("\n") + 1) from None
    return normalize_newlines(text)


def normalize_newlines(text: str) -> str:
    """The text with LF at the end of every line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def utf8_error(name: str, content: bytes, line: int) -> ValueError:
    """The error of a file, of which `content` is at least the first bytes, that is not UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ValueError(
            f"{name} is UTF-16 text, and UTF-8 is needed: convert it with "
            f"`iconv -f UTF-16 -t UTF-8`, or save it as UTF-8 in an editor."
        )
    return ValueError(f"{name}, line {line:,} is not UTF-8 text: save the file as UTF-8.")


def read_stdin() -> str:
    """The whole text of standard input; raises ValueError, as `read_text` does."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        return decode_text(sys.stdin.buffer.read(), "standard input")
    return sys.stdin.read()


def open_stdin() -> TextIO:
    """Standard input, to read line by line; bytes that are not UTF-8 become U+FFFD."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace", newline=None)
    return sys.stdin
