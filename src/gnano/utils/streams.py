"""The standard streams of a process: always there, and able to encode every character.

    closed (`<&-`, `>&-`, `2>&-`)           is /dev/null instead, under its own descriptor
    a character the encoding does not have  is written as JSON escapes it, \u00e9
    a write that fails                      is dropped on a stream that only informs

Without this a progress line on a full disk, or in a terminal that was closed, ends the work it
reports on, and Python turns the exit code of finished work into 120 when it flushes at the end.

Where a command may write: apart from what it reads, and not inside a run or a data folder.

    check_output(Path("corpus"), "--data.folder", inputs=["corpus"], own="data folder")
    # ValueError: corpus is the input itself: name another place for the output (--data.folder).

Shards beside the text that they are made of would be read as text by the next command, and be in
the way of whoever wants to delete them.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
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


FOLDER_MARKERS = {
    "data folder": ("manifest.json", "tokenizer.json"),
    "run": ("recipe.toml", "run.lock"),
}


def check_output_path(
    out: Path, option: str, inputs: Iterable[Path | str] = (), allowed_kind: str = ""
) -> None:
    """Raise ValueError where `out` lies in an input, an input in `out`, or `out` in one of `KINDS`.

    `option` is what names another output, `inputs` are paths and globs, and `own` is the one of
    `KINDS` that `out` itself may be already, to be continued.
    """
    place = out.expanduser().resolve()
    advice = f"name another place for the output ({option})"
    for folder in (place, *place.parents):
        for kind, names in FOLDER_MARKERS.items():
            if all((folder / name).exists() for name in names):
                if folder != place:
                    raise ValueError(f"{out} is inside {folder}, which is a {kind}: {advice}.")
                if kind != allowed_kind:
                    raise ValueError(f"{out} is a {kind}: {advice}.")
    for given in inputs:
        read, everything = _input_extent(Path(given).expanduser())
        if everything and place.is_relative_to(read):
            where = "the input itself" if place == read else f"inside the input {given}"
            raise ValueError(f"{out} is {where}: {advice}.")
        if read.is_relative_to(place):
            raise ValueError(f"{out} holds the input {given}: {advice}.")


def _input_extent(path: Path) -> tuple[Path, bool]:
    """The file or folder that a path or glob begins with; whether all that lies below is read."""
    if path.exists():
        return path.resolve(), path.is_dir()
    fixed = []
    for part in path.parts:
        if set(part) & set("*?["):
            break
        fixed.append(part)
    everything = "**" in path.parts and fnmatch("manifest.json", path.name)
    return Path(*fixed).resolve(), everything
