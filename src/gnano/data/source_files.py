"""The files of a data source: found on disk or on the Hugging Face Hub, and grouped into tasks.

    globs, a Hub dataset or a generator ─▶ files ─▶ a fixed order ─▶ tasks

A task is the unit of work of a worker: one file, or several small ones. The order is determined by
the files' names only, so that a budget samples a corpus that was sorted by topic or date, and the
same files give the same tasks in every location.

Paths, folders and globs are searched by code of this module, so that every version of Python finds
the same files. `**` matches any folders, and at a pattern's end everything below. Linked folders
are followed once. Files that are never data (hidden ones, what editors and systems leave, pictures
and other binary files) are skipped in folders and globs, and listed; a file that is named itself is
read or refused.

Fine-tuning files of the Hub are downloaded once into a folder with a listing of them and their
commit. While the listing exists, the network is not used, so a later run reads the same data:

    data/hub/databricks--databricks-dolly-15k/main.json      {"commit": …, "files": …}
                                              3f2c…/databricks-dolly-15k.jsonl
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gnano.config.data_config import InstructionSource, SourceConfig
from gnano.data.generators import iter_items, load_generator
from gnano.data.readers import Document, check_column, read_documents
from gnano.data.text_files import RecordError, check_text, is_binary
from gnano.utils.files import atomic_write_text
from gnano.utils.platform_support import require

MIN_TASK_BYTES = 8 * 2**20  # smaller files are joined until a task has this size
MAX_TASKS = 2_000  # of one source, unless its files are large
MAX_CHECKED_DOCUMENTS = 1_000  # documents at the start of a file, one of which must hold text
FINGERPRINT_BYTES = 2**16  # bytes at both ends of a local file that represent its content
MAX_SHOWN_FILES = 5  # skipped files that are shown
PROGRAM_LEFTOVERS = ("__pycache__", "Thumbs.db", "desktop.ini")


class InputFile(NamedTuple):
    """A file of a source."""

    name: str  # relative to the files' common folder, or in the Hub's repository
    size: int  # bytes on disk
    fingerprint: str  # represents the content


TaskFiles = tuple[InputFile, ...]


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source."""

    source: SourceConfig
    tasks: tuple[TaskFiles, ...]
    root: Path  # local files: their common folder
    commit: str = ""  # Hub: the revision's commit
    skipped: tuple[str, ...] = ()  # local files that were skipped, each with the reason

    def task_paths(self, task: int, downloads: Path) -> list[Path]:
        """Return where a task's files are, or will be when they are downloaded."""
        if self.source.kind == "generator":
            return []
        root = downloads if self.source.kind == "hub" else self.root
        return [root / file.name for file in self.tasks[task]]

    def fetch_task(self, task: int, downloads: Path) -> list[Path]:
        """Return where a task's files are, after downloading those of the Hub."""
        if self.source.kind == "hub":
            from gnano.utils.hf_datasets import HubFile, download_file

            for file in self.tasks[task]:
                download_file(self.source.repo, self.commit, HubFile(*file), downloads)
        return self.task_paths(task, downloads)

    def delete_downloads(self, task: int, downloads: Path) -> None:
        """Delete a task's files of the Hub."""
        if self.source.kind == "hub":
            for path in self.task_paths(task, downloads):
                path.unlink(missing_ok=True)


def find_source_files(source: SourceConfig, commit: str = "") -> SourceFiles:
    """Return the source's tasks, on the Hub at a given commit; raise ValueError if it has none.

    Files are in a fixed order, small ones together; a small rest joins the last task.
    """
    if source.kind == "generator":
        identity = load_generator(source.generator).identity()
        file = InputFile(source.generator, source.max_bytes, identity)
        return SourceFiles(source, ((file,),), Path())
    if source.kind == "hub":
        from gnano.utils.hf_datasets import resolve_dataset

        revision = commit or source.revision
        commit, found = resolve_dataset(source.repo, source.config, source.split, revision)
        files, root, skipped = [InputFile(*file) for file in found], Path(), []
    else:
        search = find_files(source.files)
        if not search.paths:
            raise ValueError("files names no file.")
        paths = [path.absolute() for path in search.paths]
        root = Path(os.path.commonpath([path.parent for path in paths]))
        files = [describe_local_file(path, root) for path in paths]
        skipped = [f"{os.path.relpath(path, root)} ({why})" for path, why in search.skipped.items()]
    for suffix, package in ((".parquet", "pyarrow"), (".zst", "zstandard")):
        name = next((file.name for file in files if file.name.endswith(suffix)), None)
        if name:  # checked here, not after hours of reading other files
            require(package, "data", f"Reading {name} needs {package}")
    files.sort(key=lambda file: hashlib.sha256(file.name.encode()).digest())
    minimum = max(MIN_TASK_BYTES, sum(file.size for file in files) // MAX_TASKS)
    tasks: list[TaskFiles] = []
    group: list[InputFile] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.size
        if size >= minimum:
            tasks.append(tuple(group))
            group, size = [], 0
    if group:
        last = tasks.pop() if tasks else ()
        tasks.append((*last, *group))
    return SourceFiles(source, tuple(tasks), root, commit, tuple(skipped))


def check_source_files(source_files: SourceFiles) -> None:
    """Check the source's first file: access, its column, some text; raise ValueError otherwise."""
    source = source_files.source
    if source.kind == "hub":
        from gnano.utils.hf_datasets import HubFile, check_file

        file = HubFile(*source_files.tasks[0][0])
        check_file(source.repo, source_files.commit, file, source.column)
    elif source.kind == "files":
        tasks = (source_files.task_paths(task, Path()) for task in range(len(source_files.tasks)))
        check_column([path for paths in tasks for path in paths], source.column)
        bad: list[RecordError] = []
        for path in source_files.task_paths(0, Path()):
            documents = read_documents(path, source.column, verify=False)
            for document in islice(documents, MAX_CHECKED_DOCUMENTS):
                if isinstance(document, RecordError):
                    bad.append(document)
                elif document.text.strip():
                    return
        if bad:
            raise bad[0]
        if len(source_files.tasks) == 1:
            raise ValueError(f"{source.location} holds no training text; name files that do.")


def read_task_documents(
    source: SourceConfig, paths: Sequence[Path], verify: bool = True
) -> Iterator[Document | RecordError]:
    """Yield the documents of a task in order, as `read_documents` does."""
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
    """Describe a local file by its name relative to `root`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        edges = file.read(FINGERPRINT_BYTES)
        file.seek(max(size - FINGERPRINT_BYTES, 0))
        edges += file.read(FINGERPRINT_BYTES)
    identity = hashlib.blake2b(edges, digest_size=16).hexdigest()
    return InputFile(path.relative_to(root).as_posix(), size, identity)


def resolve_source_files(
    source: InstructionSource, cache_dir: Path, notify: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return paths or globs of a fine-tuning source, after downloading the Hub's files."""
    if source.kind != "hub":
        return list(source.files)
    from gnano.utils.hf_datasets import HubFile, download_file, resolve_dataset

    name = "-".join(filter(None, (source.config, source.split, source.revision)))
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        name = hashlib.sha256(name.encode()).hexdigest()[:16]  # a path, such as data/en
    folder = cache_dir / source.repo.replace("/", "--")
    listing = folder / f"{name}.json"
    is_listed = listing.is_file()
    if is_listed:
        try:
            content = json.loads(listing.read_text("utf-8"))
            commit, files = str(content["commit"]), [HubFile(*file) for file in content["files"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{listing} is damaged ({error}): delete it to list the Hub's files again."
            ) from None
    else:
        commit, files = resolve_dataset(source.repo, source.config, source.split, source.revision)
    paths = []
    for number, file in enumerate(files, 1):
        size = f"{file.size / 1e6:,.1f} MB"
        notify(f"{source.repo}: file {number} of {len(files)}, {file.name}, {size}")
        paths.append(str(download_file(source.repo, commit, file, folder / commit)))
    if not is_listed:
        atomic_write_text(listing, json.dumps({"commit": commit, "files": files}, indent=2) + "\n")
    return paths


class FileSearchResult(NamedTuple):
    """The files that were found, and those that were skipped."""

    paths: list[Path]
    skipped: dict[Path, str]  # with the reason

    def format_skipped(self) -> str:
        """Return a summary of the skipped files; "" where there are none."""
        return format_skipped_files([f"{path} ({why})" for path, why in self.skipped.items()])


def format_skipped_files(skipped: Sequence[str]) -> str:
    """Return how many files were skipped, and the first of them; "" where there are none."""
    if not skipped:
        return ""
    more = f" and {len(skipped) - MAX_SHOWN_FILES:,} more" if len(skipped) > MAX_SHOWN_FILES else ""
    return f"{len(skipped):,} left out: {', '.join(skipped[:MAX_SHOWN_FILES])}{more}"


def find_files(patterns: Sequence[str]) -> FileSearchResult:
    """Return the sorted files that paths and globs name; a folder stands for all files inside.

    A file with several paths (`a`, `/here/a`, `b/../a`, a link) is found once, by the first of
    them. Raises FileNotFoundError or ValueError, naming the pattern, if it matches no file, and
    ValueError for a binary file that is named itself.
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
            detail = f"searched from {Path.cwd()}{f'; {left}' * bool(left)}"
            raise FileNotFoundError(f"No file matches {pattern!r} ({detail}).")
        for match in matches:
            found.setdefault(match.resolve(), match)
    left_out = {path: skipped[path] for path in sorted(skipped) if path.resolve() not in found}
    return FileSearchResult(sorted(found.values()), left_out)


def _search_pattern(path: Path, pattern: str, skipped: dict[Path, str]) -> list[Path]:
    """Return the matches of a folder or glob, those below linked folders last; extend `skipped`."""
    base, rest = Path(path.anchor), list(path.parts[bool(path.anchor) :])
    while rest and (base / rest[0]).exists():  # a name may contain brackets, too
        base /= rest.pop(0)
    if any("**" in part and part != "**" for part in rest):
        raise ValueError(
            f"{pattern!r} is not a valid pattern: ** matches any folders and must be alone between "
            f"two slashes, as in data/**/*.txt; within a name write * instead."
        )
    rest = rest or ["**"]
    hidden = any(part.startswith(".") for part in rest)  # the pattern names them
    found: list[Path] = []
    seen: set[Path] = set()
    pending = [base]
    while pending:
        links: list[Path] = []
        files: list[Path] = []
        for folder in pending:  # grows as folders are found
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
                is_folder = entry.is_dir()
                if not (_may_contain_match(parts, rest) if is_folder else _matches(parts, rest)):
                    continue
                if reason := _skip_reason(entry, hidden):
                    skipped[entry] = reason
                elif is_folder:
                    (links if entry.is_symlink() else pending).append(entry)
                else:
                    files.append(entry)
        found += sorted(files)
        pending = links
    return found


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a pattern matches a path."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_contain_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a pattern may match something inside a folder."""
    if not parts or pattern[:1] == ["**"]:
        return bool(pattern)
    is_match = len(pattern) > 1 and fnmatchcase(parts[0], pattern[0])
    return is_match and _may_contain_match(parts[1:], pattern[1:])


def _skip_reason(entry: Path, hidden: bool) -> str:
    """Return why an entry of a folder is skipped; "" where it is not."""
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
        return "not a regular file"
    return "binary" if is_binary(entry) else ""
