"""The files of a source in a fixed order, grouped into tasks.

    globs, a Hub data set, or a generator ─▶ files ─▶ a fixed order ─▶ tasks

A task is what one worker takes on at a time: one file, or several small ones together. The
order is drawn from the files' names alone, so that a budget cuts through a corpus that was
sorted by topic or date, and the same files give the same tasks wherever they lie.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gnano.data.bad_records import RecordError
from gnano.data.documents import Document, check_column, read_documents
from gnano.data.file_search import find_files
from gnano.data.generators import iter_items, load_generator
from gnano.data.sources import SourceConfig

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
        from gnano.data.hub.files import resolve_dataset

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
        from gnano.data.hub.files import HubFile, check_file

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
