"""JSON that every reader takes: it has no NaN and no infinity, so those are written as null.

The text of files and of standard input, read in the same way by every command.

Text is UTF-8. A byte order mark at its start is no part of it. Lines end in LF, CRLF or CR, and in
nothing else (`str.splitlines` also cuts at form feeds, U+0085 and U+2028); text that was read has
LF alone.

Paths that people type: `~` is their home, in a recipe as on a command line.
"""

import codecs
import io
import json
import math
import os.path
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO


def dump_json(value: Any, **options: Any) -> str:
    """The value as `json.dumps` writes it with these options; null for what is not finite."""
    return json.dumps(_replace_non_finite(value), allow_nan=False, **options)


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(inner) for inner in value]
    return value


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


def expand_path(path: str) -> str:
    """The path with a leading ~ or ~user written out; as it is where there is no such user."""
    return os.path.expanduser(path)  # noqa: PTH111  Path's raises where there is no such user


def expand_path_fields(config: object, names: Sequence[str]) -> None:
    """Write out a leading ~ in these fields, paths or lists of them, of a frozen dataclass.

    For use in its `__post_init__`. A ~ after the first letter, as in TASK=~/PATH, is left.
    """
    for name in names:
        value = getattr(config, name)
        whole = expand_path(value) if isinstance(value, str) else tuple(map(expand_path, value))
        object.__setattr__(config, name, whole)
