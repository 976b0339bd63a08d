"""What came last in a log? Its lines from the end backwards, so that a long log costs nothing.

{"step": 8, "loss": 5.19, …}     third
{"step": 9, "loss": 5.1          second: torn by a kill, no object, skipped
{"step": 9, "loss": 5.18, …}     first
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 2**16  # bytes read at once


def objects_backwards(path: Path, holding: str = "") -> Iterator[dict[str, Any]]:
    """The JSON objects of a log, newest first; of lines that hold a text, where one is given.

    Raises OSError for a file that cannot be read.
    """
    wanted = holding.encode()
    for line in _lines_backwards(path):
        if wanted not in line:
            continue
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""  # a line's end, whose beginning lies in the block before
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest
