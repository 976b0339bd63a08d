"""Files: UTF-8 text, strict JSON, atomic writes, locks, and the check of output paths.

Text is UTF-8. A byte order mark at its start is not part of it. Lines end in LF, CRLF or CR, and in
nothing else (`str.splitlines` also splits at form feeds, U+0085 and U+2028); text that was read has
LF only.

A file or folder that is written appears complete or not at all, even after a power failure:

    with atomic_replace(path) as temporary:      a hidden file in the same folder
        temporary.write_bytes(content)
    ─▶ fsync ─▶ rename over `path` ─▶ fsync of the folder

A failure leaves `path` as it was and removes the temporary file; its OSError names `path`. Locks
are advisory: taken without waiting, and released by the kernel when the process ends.
"""

import codecs
import errno
import fcntl
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path
from typing import Any

FOLDER_MARKERS = {
    "data folder": ("manifest.json", "tokenizer.json"),
    "run": ("recipe.toml", "run.lock"),
}
_BUSY = {errno.EWOULDBLOCK, errno.EACCES}
# file systems without locks (some network ones): work continues without this protection
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def dump_json(value: Any, **options: Any) -> str:
    """Return strict JSON, as `json.dumps` does; NaN and infinities become null."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # one of the numbers is not finite
        return json.dumps(_replace_non_finite(value), allow_nan=False, **options)


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(inner) for inner in value]
    return value


def read_text(path: Path | None) -> str:
    """Return the text of a file, or of standard input (None).

    Raises ValueError, naming file and line, if it is not UTF-8.
    """
    name = "standard input" if path is None else str(path)
    content = sys.stdin.buffer.read() if path is None else path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
        raise utf8_error(name, content, line) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def utf8_error(name: str, content: bytes, line: int) -> ValueError:
    """Return the error for a file that is not UTF-8; `content` is at least its first bytes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ValueError(
            f"{name} is UTF-16 text, and UTF-8 is needed: convert it with "
            f"`iconv -f UTF-16 -t UTF-8`, or save it as UTF-8 in an editor."
        )
    return ValueError(f"{name}, line {line:,} is not UTF-8 text: save the file as UTF-8.")


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


@contextmanager
def create_file_atomically(out: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; on success it becomes `out`, which must not exist."""
    if os.path.lexists(out):
        raise FileExistsError(f"{out} already exists: choose an output path that does not exist.")
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_path(partial)
    try:
        yield partial
        fsync_path(partial)
        partial.rename(out)
    finally:
        _remove_path(partial)
    fsync_path(out.parent)


@contextmanager
def create_dir_atomically(out: Path) -> Iterator[Path]:
    """Yield a new, empty hidden folder that becomes `out`, as `create_file_atomically` does."""
    with create_file_atomically(out) as partial:
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            fsync_path(file)


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content."""
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a file's content with UTF-8 text; a lone surrogate becomes "?"."""
    atomic_write_bytes(path, text.encode("utf-8", errors="replace"))


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(path)
    except OSError as error:
        names = {str(error.filename), str(error.filename2)}
        if error.errno is None or not ({str(temporary)} & names or error.filename is None):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    with suppress(OSError):  # some network file systems do not sync folders
        fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder; raise ValueError if another `gnano prepare` has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another `gnano prepare` is running in {folder}; wait for it, or choose another "
                f"folder (--data.folder)."
            ) from None
        yield


def try_lock(file: int, mode: int) -> None:
    """Lock a descriptor with fcntl.LOCK_EX or LOCK_SH; BlockingIOError where another has it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise BlockingIOError(*error.args) from None
        if error.errno not in _UNSUPPORTED:
            raise


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
        path = Path(given).expanduser()
        if path.exists():
            read, reads_all_below = path.resolve(), path.is_dir()
        else:  # a glob: the parts before its first wildcard are a folder that it reads
            fixed = takewhile(lambda part: not set(part) & set("*?["), path.parts)
            read = Path(*fixed).resolve()
            reads_all_below = "**" in path.parts and fnmatch("manifest.json", path.name)
        if reads_all_below and place.is_relative_to(read):
            where = "the input itself" if place == read else f"inside the input {given}"
            raise ValueError(f"{out} is {where}: {advice}.")
        if read.is_relative_to(place):
            raise ValueError(f"{out} contains the input {given}: {advice}.")
