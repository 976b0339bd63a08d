"""Finds the files of a split by a repository's card, or else by the files' names.

    card: {config_name, data_dir, data_files} ─▶ patterns by split ─▶ names that they match
    no card: python/train-00000-of-00059.parquet, data/test/a.jsonl ─▶ the split in the name

A card's words are those of https://huggingface.co/docs/hub/datasets-manual-configuration,
and so are the words for a split in a name. Everything here is about names alone.
"""

import re
from pathlib import PurePosixPath
from typing import Any

DATA_FILE_PATTERN = re.compile(
    r"\.(parquet|(jsonl|jsonlines|jl|ndjson)(\.gz|\.zst)?|json\.(gz|zst))$", re.I
)
# a lone .json may be data or tell about it: it is data where there is no other file that can be
JSON_FILE_PATTERN = re.compile(r"(^|/)(?!dataset_infos?\.|config\.|state\.)[^/]+\.json$", re.I)
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}

NamesBySplit = dict[str, list[str]]  # of files, by split; "": their names tell none


def group_by_split(names: list[str], split: str, folder: str = "") -> NamesBySplit:
    """The data files below a folder, by split; where no name tells one, all are for training."""
    found: NamesBySplit = {}
    for name in select_data_files(names):
        found.setdefault(_split_from_path(name.removeprefix(folder), split), []).append(name)
    if found.keys() == {""}:
        return {"train": found[""]}
    return found or {"": names}


def select_data_files(names: list[str]) -> list[str]:
    """Those that hold records."""
    return [name for name in names if DATA_FILE_PATTERN.search(name)] or [
        name for name in names if JSON_FILE_PATTERN.search(name)
    ]


def card_patterns(data_files: Any, folder: str) -> NamesBySplit:
    """A card's `data_files`, in any of its spellings, as globs by split."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    globs: NamesBySplit = {}
    for item in [data_files] if isinstance(data_files, str) else data_files or []:
        split, path = (item.get("split"), item["path"]) if isinstance(item, dict) else ("", item)
        for glob in [path] if isinstance(path, str) else path:
            globs.setdefault(split or "train", []).append(str(PurePosixPath(folder, glob)))
    return globs


def literal_prefix(glob: str) -> str:
    """The folder that all files of a glob are below."""
    return re.split(r"[*?\[]", glob)[0].rpartition("/")[0]


def matches_any(name: str, patterns: list[str]) -> bool:
    """Does a glob name this file? `**` crosses folders, `*` and `?` stay in theirs."""
    return any(re.fullmatch(_glob_to_regex(glob), name) for glob in patterns)


def select_split(found: NamesBySplit, split: str, where: str) -> set[str]:
    """The names of this split that are data files; ValueError says what there is instead."""
    names = set(select_data_files(found.get(split, [])))
    if names:
        return names
    if split not in found and (others := sorted(of for of in found if of)):
        raise ValueError(f"{where} has no split {split!r}; it has {', '.join(others)} (split).")
    kinds = {PurePosixPath(name).suffix for names in found.values() for name in names} - {""}
    has = f"it has {', '.join(sorted(kinds))}" if kinds else "nothing is there"
    raise ValueError(f"{where} has no .parquet, .jsonl or .json file of split {split!r}; {has}.")


def _split_from_path(path: str, split: str) -> str:
    """The split a path speaks of: its file name, else its nearest folder; '' if none does."""
    words = {split: split} | {word: split for split, words in SPLIT_WORDS.items() for word in words}
    for part in reversed(path.lower().split("/")):
        for word, split in words.items():
            if re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", part):
                return split
    return ""


def _glob_to_regex(glob: str) -> str:
    meaning = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        part.replace("[!", "[^") if part.startswith("[") else meaning.get(part, re.escape(part))
        for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", glob)
    )
