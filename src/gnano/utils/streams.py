r"""The standard streams of a process, and the check of output paths.

    closed (`<&-`, `>&-`, `2>&-`)           is replaced by /dev/null, under its own descriptor
    a character the encoding does not have  is written as JSON escapes it, \u00e9
    a write that fails                      is dropped on a stream that only informs

Without this, a progress line on a full disk or in a closed terminal would end the work it reports
on, and Python's final flush would turn the exit code of finished work into 120.
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
FOLDER_MARKERS = {
    "data folder": ("manifest.json", "tokenizer.json"),
    "run": ("recipe.toml", "run.lock"),
}


def prepare_streams() -> None:
    """Open closed standard streams, and let stdout and stderr encode any text."""
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


def write_output(text: str = "") -> None:
    """Write text to stdout and flush it.

    Raises OSError, naming standard output, where that fails; stdout's buffer is then discarded,
    because Python would try to write it again at exit.
    """
    try:
        if text:  # a full disk refuses even an empty write
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise OSError(error.errno, error.strerror, "standard output") from None


def write_or_drop(stream: TextIO, text: str) -> None:
    """Write and flush text; a stream that fails or is closed drops it."""
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
    """Open /dev/null as each of the descriptors 0, 1 and 2 that is closed."""
    null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2] for at in range(0, len(units), 2))
    return "".join(f"\\u{pair.hex()}" for pair in pairs), error.end


def check_output_path(
    out: Path, option: str, inputs: Iterable[Path | str] = (), allowed_kind: str = ""
) -> None:
    """Raise ValueError if `out` is in an input, contains one, or is in a data folder or run.

    Shards beside their text would be read as text by the next command. `option` is the option that
    sets the output, `inputs` are paths and globs, and `allowed_kind` is the key of FOLDER_MARKERS
    that `out` itself may be, to be continued.

    >>> check_output_path(Path("corpus"), "--data.folder", inputs=["corpus"])
    ValueError: corpus is the input itself: choose another output path (--data.folder).
    """
    place = out.expanduser().resolve()
    advice = f"choose another output path ({option})"
    for folder in (place, *place.parents):
        for kind, names in FOLDER_MARKERS.items():
            if all((folder / name).exists() for name in names):
                if folder != place:
                    raise ValueError(f"{out} is inside {folder}, which is a {kind}: {advice}.")
                if kind != allowed_kind:
                    raise ValueError(f"{out} is a {kind}: {advice}.")
    for given in inputs:
        read, recursive = _input_extent(Path(given).expanduser())
        if recursive and place.is_relative_to(read):
            where = "the input itself" if place == read else f"inside the input {given}"
            raise ValueError(f"{out} is {where}: {advice}.")
        if read.is_relative_to(place):
            raise ValueError(f"{out} contains the input {given}: {advice}.")


def _input_extent(path: Path) -> tuple[Path, bool]:
    """Return the fixed start of a path or glob, and whether everything below it is read."""
    if path.exists():
        return path.resolve(), path.is_dir()
    fixed = []
    for part in path.parts:
        if set(part) & set("*?["):
            break
        fixed.append(part)
    return Path(*fixed).resolve(), "**" in path.parts and fnmatch("manifest.json", path.name)
