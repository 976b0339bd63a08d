"""Text and JSON in and out: UTF-8 files, standard input, strict JSON, and paths with `~`.

Text is UTF-8. A byte order mark at its start is not part of it. Lines end in LF, CRLF or CR, and in
nothing else (`str.splitlines` also splits at form feeds, U+0085 and U+2028); text that was read has
LF only.
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
    """Return strict JSON, as `json.dumps` does; NaN and infinities become null."""
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
    """Return the text of a file; raise ValueError, naming file and line, if it is not UTF-8."""
    return decode_text(path.read_bytes(), str(path))


def decode_text(content: bytes, name: str) -> str:
    """Decode the bytes of the file `name`; raise ValueError as `read_text` does."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = normalize_newlines(content[: error.start].decode("latin-1"))
        raise utf8_error(name, content, before.count("\n") + 1) from None
    return normalize_newlines(text)


def normalize_newlines(text: str) -> str:
    """Replace CRLF and CR by LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def utf8_error(name: str, content: bytes, line: int) -> ValueError:
    """Return the error for a file that is not UTF-8; `content` is at least its first bytes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ValueError(
            f"{name} is UTF-16 text, and UTF-8 is needed: convert it with "
            f"`iconv -f UTF-16 -t UTF-8`, or save it as UTF-8 in an editor."
        )
    return ValueError(f"{name}, line {line:,} is not UTF-8 text: save the file as UTF-8.")


def read_stdin() -> str:
    """Return the text of standard input; raise ValueError as `read_text` does."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        return decode_text(sys.stdin.buffer.read(), "standard input")
    return sys.stdin.read()


def open_stdin() -> TextIO:
    """Return standard input for reading by line; bytes that are not UTF-8 become U+FFFD."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace", newline=None)
    return sys.stdin


def expand_path(path: str) -> str:
    """Expand a leading ~ or ~user; a path with an unknown user is returned unchanged."""
    return os.path.expanduser(path)  # noqa: PTH111  Path's raises for an unknown user


def expand_path_fields(config: object, names: Sequence[str]) -> None:
    """Expand a leading ~ in these fields, paths or lists of paths, of a frozen dataclass.

    For use in its `__post_init__`. A ~ elsewhere, as in TASK=~/PATH, is not expanded.
    """
    for name in names:
        value = getattr(config, name)
        expanded = expand_path(value) if isinstance(value, str) else tuple(map(expand_path, value))
        object.__setattr__(config, name, expanded)
