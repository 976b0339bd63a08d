"""The files of a source's records: the user's, or the Hub's, which are downloaded once.

The Hub's files are stored in a folder of their own, with a listing of them and their commit. While
it is there, the network is not asked again, so a run goes on without it, and with the same data.

    data/hub/databricks--databricks-dolly-15k/main.json      {"commit": …, "files": …}
                                              3f2c…/databricks-dolly-15k.jsonl

The files that paths, folders and globs name.

The walk is our own, so that every version of Python finds the same files. `**` stands for any
folders, and at a pattern's end for everything below. Linked folders are followed once. Files that
nobody means (hidden ones, what editors and systems leave, pictures and other binary files) are
left out of folders and globs, and named; a file that is named itself is read or refused.

The files of a source in a fixed order, grouped into tasks.

    globs, a Hub data set, or a generator ─▶ files ─▶ a fixed order ─▶ tasks

A task is what one worker takes on at a time: one file, or several small ones together. The
order is drawn from the files' names alone, so that a budget cuts through a corpus that was
sorted by topic or date, and the same files give the same tasks wherever they lie.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gnano.config.data_config import InstructionSource, SourceConfig
from gnano.data.generators import iter_items, load_generator
from gnano.data.readers import Document, check_column, read_documents
from gnano.data.record_errors import RecordError
from gnano.data.text_files import check_text, is_binary
from gnano.utils.atomic_io import atomic_write_text


def resolve_source_files(
    source: InstructionSource, cache_dir: Path, notify: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return paths or globs of the source's files, which are local from then on.

    Raises ValueError or OSError, in a sentence, for what is not there or may not be read.
    """
    if source.kind != "hub":
        return list(source.files)
    from gnano.utils.hf_hub import HubFile, download_file, resolve_dataset

    folder = cache_dir / source.repo.replace("/", "--")
    listing = folder / f"{_listing_name(source)}.json"
    if listing.is_file():
        commit, files = _read_listing(listing)
    else:
        commit, found = resolve_dataset(source.repo, source.config, source.split, source.revision)
        files = [HubFile(*file) for file in found]
    paths = []
    for number, file in enumerate(files, 1):
        size = f"{file.size / 1e6:,.1f} MB"
        notify(f"{source.repo}: file {number} of {len(files)}, {file.name}, {size}")
        paths.append(str(download_file(source.repo, commit, file, folder / commit)))
    if not listing.is_file():
        atomic_write_text(listing, json.dumps({"commit": commit, "files": files}, indent=2) + "\n")
    return paths


def _listing_name(source: InstructionSource) -> str:
    """Return a name: another configuration, split or revision has a listing of its own."""
    name = "-".join(filter(None, (source.config, source.split, source.revision)))
    if name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:16]  # a path, such as data/en


def _read_listing(listing: Path) -> tuple[str, list[Any]]:
    from gnano.utils.hf_hub import HubFile

    try:
        content = json.loads(listing.read_text("utf-8"))
        return str(content["commit"]), [HubFile(*file) for file in content["files"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{listing} is damaged ({error}): delete it, and the Hub is asked again."
        ) from None


MAX_SHOWN_FILES = 5  # skipped files that are shown
PROGRAM_LEFTOVERS = ("__pycache__", "Thumbs.db", "desktop.ini")


class FileSearchResult(NamedTuple):
    paths: list[Path]
    skipped: dict[Path, str]  # what was left out, and why

    def format_skipped(self) -> str:
        """What was left out, in a few words; "" where it is nothing."""
        return format_skipped_files([f"{path} ({why})" for path, why in self.skipped.items()])


def format_skipped_files(skipped: Sequence[str]) -> str:
    """How many files were left out, and the first of them; "" where none was."""
    if not skipped:
        return ""
    more = f" and {len(skipped) - MAX_SHOWN_FILES:,} more" if len(skipped) > MAX_SHOWN_FILES else ""
    return f"{len(skipped):,} left out: {', '.join(skipped[:MAX_SHOWN_FILES])}{more}"


def find_files(patterns: Sequence[str]) -> FileSearchResult:
    """The files that paths and globs name, sorted; a folder means all inside it.

    A file reached by several ways (`a`, `/here/a`, `b/../a`, a link) is found once, by the
    name it was first given. Raises FileNotFoundError or ValueError, naming the pattern, where it
    names no file, and ValueError for a binary file that is named itself.
    """
    found: dict[Path, Path] = {}
    skipped: dict[Path, str] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.exists() and not path.is_dir():
            if path.is_file():
                check_text(path)
            matches = [path]
        else:
            matches = _search_pattern(path, pattern, skipped)
        if not matches:
            left = FileSearchResult([], skipped).format_skipped()
            raise FileNotFoundError(
                f"No file matches {pattern!r} (looked from {Path.cwd()}{f'; {left}' * bool(left)})."
            )
        for match in matches:
            found.setdefault(match.resolve(), match)
    left_out = {path: skipped[path] for path in sorted(skipped) if path.resolve() not in found}
    return FileSearchResult(sorted(found.values()), left_out)


def _search_pattern(path: Path, pattern: str, skipped: dict[Path, str]) -> list[Path]:
    """What a folder or a glob names, that below linked folders last.

    Adds to `skipped` what is left out.
    """
    base, rest = Path(path.anchor), list(path.parts[bool(path.anchor) :])
    while rest and (base / rest[0]).exists():  # a name may have brackets, too
        base /= rest.pop(0)
    if any("**" in part and part != "**" for part in rest):
        raise ValueError(
            f"{pattern!r} is no pattern: ** stands for any folders and must be alone between "
            f"two slashes, as in data/**/*.txt; within a name write * instead."
        )
    rest = rest or ["**"]
    hidden = any(part.startswith(".") for part in rest)  # asked for by name
    found: list[Path] = []
    seen: set[Path] = set()
    waiting = [base]
    while waiting:
        links: list[Path] = []
        files: list[Path] = []
        for folder in waiting:  # grows as folders are found
            if (real := folder.resolve()) in seen or not folder.is_dir():
                continue
            seen.add(real)
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                skipped[folder] = error.strerror or "unreadable"
                continue
            for entry in entries:
                parts = entry.relative_to(base).parts
                folders = entry.is_dir()
                if not (_may_contain_match(parts, rest) if folders else _matches(parts, rest)):
                    continue
                if why := _skip_reason(entry, hidden):
                    skipped[entry] = why
                elif folders:
                    (links if entry.is_symlink() else waiting).append(entry)
                else:
                    files.append(entry)
        found += sorted(files)
        waiting = links
    return found


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Does the pattern name this path?"""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_contain_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """May the pattern name something inside this folder?"""
    if not parts or pattern[:1] == ["**"]:
        return bool(pattern)
    return (
        len(pattern) > 1
        and fnmatchcase(parts[0], pattern[0])
        and _may_contain_match(parts[1:], pattern[1:])
    )


def _skip_reason(entry: Path, hidden: bool) -> str:
    """Why an entry of a folder is left out; "" where it is not."""
    name = entry.name
    if name.startswith(".") and not hidden:
        return "hidden"
    if name in PROGRAM_LEFTOVERS or name.endswith("~") or (name[0] == name[-1] == "#"):
        return "left by a program"
    if not entry.exists():
        return "broken link"
    if not os.access(entry, os.R_OK):
        return "may not be read"
    if entry.is_dir():
        return ""
    if not entry.is_file():
        return "no regular file"
    return "binary" if is_binary(entry) else ""


MIN_TASK_BYTES = 8 * 2**20  # bytes; smaller files are put together until a task has as many
MAX_TASKS = 2_000  # of one source, unless its files are large
MAX_CHECKED_DOCUMENTS = 1_000  # documents of a file, one of which must be of use
FINGERPRINT_BYTES = 2**16  # bytes at both ends of a local file that stand for its content


class InputFile(NamedTuple):
    name: str  # below the files' common folder, or in the Hub's repository
    size: int  # bytes on disk
    fingerprint: str  # stands for the content


TaskFiles = tuple[InputFile, ...]


@dataclass(frozen=True)
class SourceFiles:
    """One source's files, found."""

    source: SourceConfig
    tasks: tuple[TaskFiles, ...]
    root: Path  # local files: their common folder
    commit: str = ""  # Hub: the revision's commit
    skipped: tuple[str, ...] = ()  # local files that were left out, each with the reason

    def task_paths(self, task: int, downloads: Path) -> list[Path]:
        """Where a task's files lie, or will lie when they are downloaded."""
        if self.source.kind == "generator":
            return []
        root = downloads if self.source.kind == "hub" else self.root
        return [root / file.name for file in self.tasks[task]]


def find_source_files(source: SourceConfig, commit: str = "") -> SourceFiles:
    """The source's tasks; on the Hub those of `commit`, if an earlier run has settled it.

    Raises ValueError, in a sentence, for what is not there or may not be read.
    """
    if source.kind == "generator":
        identity = load_generator(source.generator).identity()
        return SourceFiles(
            source, ((InputFile(source.generator, source.max_bytes, identity),),), Path()
        )
    if source.kind == "hub":
        from gnano.utils.hf_hub import resolve_dataset

        revision = commit or source.revision
        commit, found = resolve_dataset(source.repo, source.config, source.split, revision)
        return SourceFiles(
            source, _group_into_tasks([InputFile(*file) for file in found]), Path(), commit
        )
    paths, skipped = find_files(source.files)
    if not paths:
        raise ValueError("files names no file.")
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    tasks = _group_into_tasks([describe_local_file(path.absolute(), root) for path in paths])
    left_out = (f"{os.path.relpath(path, root)} ({why})" for path, why in skipped.items())
    return SourceFiles(source, tasks, root, skipped=tuple(left_out))


def check_source_files(source_files: SourceFiles) -> None:
    """Read a little of the source's first file: our rights to it, its column, some text.

    Raises ValueError, in a sentence, for what stands in the way.
    """
    source = source_files.source
    if source.kind == "hub":
        from gnano.utils.hf_hub import HubFile, check_file

        check_file(
            source.repo, source_files.commit, HubFile(*source_files.tasks[0][0]), source.column
        )
    elif source.kind == "files":
        tasks = (source_files.task_paths(task, Path()) for task in range(len(source_files.tasks)))
        check_column([path for paths in tasks for path in paths], source.column)
        bad: list[RecordError] = []
        for path in source_files.task_paths(0, Path()):
            for document in islice(
                read_documents(path, source.column, verify=False), MAX_CHECKED_DOCUMENTS
            ):
                if isinstance(document, RecordError):
                    bad.append(document)
                elif document.text.strip():
                    return
        if bad:
            raise bad[0]
        if len(source_files.tasks) == 1:
            raise ValueError(
                f"{source.location} gives no training text; name files that hold some."
            )


def read_task_documents(
    source: SourceConfig, paths: Sequence[Path], verify: bool = True
) -> Iterator[Document | RecordError]:
    """The documents of a task, in order; see `read_documents`."""
    if source.kind == "generator":
        total = 0
        for document in iter_items(source.generator, Document):
            if total >= source.max_bytes:
                return
            total += len(document.text.encode())
            yield document
    for path in paths:
        yield from read_documents(path, source.column, verify)


def describe_local_file(path: Path, root: Path) -> InputFile:
    """A file on this machine, by its name below `root`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        edges = file.read(FINGERPRINT_BYTES)
        file.seek(max(size - FINGERPRINT_BYTES, 0))
        edges += file.read(FINGERPRINT_BYTES)
    identity = hashlib.blake2b(edges, digest_size=16).hexdigest()
    return InputFile(path.relative_to(root).as_posix(), size, identity)


def _group_into_tasks(files: list[InputFile]) -> tuple[TaskFiles, ...]:
    """The files in their order, small ones together; what is left at the end joins the last."""
    for suffix, package in ((".parquet", "pyarrow"), (".zst", "zstandard")):
        read = next((file.name for file in files if file.name.endswith(suffix)), None)
        if read and find_spec(package) is None:  # asked for before hours of other files are read
            raise ValueError(f"Reading {read} needs {package}: pip install 'auto-g-nano[data]'.")
    files = sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())
    least = max(MIN_TASK_BYTES, sum(file.size for file in files) // MAX_TASKS)
    tasks: list[TaskFiles] = []
    group: list[InputFile] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.size
        if size >= least:
            tasks.append(tuple(group))
            group, size = [], 0
    if group and tasks:
        tasks[-1] += tuple(group)
    elif group:
        tasks.append(tuple(group))
    return tuple(tasks)
