"""The files that paths, folders and globs name.

The walk is our own, so that every version of Python finds the same files. `**` stands for any
folders, and at a pattern's end for everything below. Linked folders are followed once. Files that
nobody means (hidden ones, what editors and systems leave, pictures and other binary files) are
left out of folders and globs, and named; a file that is named itself is read or refused.
"""

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from gnano.data.text_files import check_text, is_binary

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
