"""The files of a split of a Hugging Face dataset, by the repository's card or by the files' names.

    card: {config_name, data_dir, data_files} ─▶ patterns by split ─▶ names that they match
    no card: python/train-00000-of-00059.parquet, data/test/a.jsonl ─▶ the split in the name

The keys of a card and the split words in a name are those of
https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

import re
from pathlib import PurePosixPath
from typing import Any

DATA_FILE_PATTERN = re.compile(
    r"\.(parquet|(jsonl|jsonlines|jl|ndjson)(\.gz|\.zst)?|json\.(gz|zst))$", re.I
)
# a .json file may hold data or metadata: it counts as data where no other data file exists
JSON_FILE_PATTERN = re.compile(r"(^|/)(?!dataset_infos?\.|config\.|state\.)[^/]+\.json$", re.I)
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}

NamesBySplit = dict[str, list[str]]  # file names by split; "": their names contain no split


def group_by_split(names: list[str], split: str, folder: str = "") -> NamesBySplit:
    """Return the data files below a folder by split; all are "train" if no name has one."""
    found: NamesBySplit = {}
    for name in select_data_files(names):
        found.setdefault(_split_from_path(name.removeprefix(folder), split), []).append(name)
    if found.keys() == {""}:
        return {"train": found[""]}
    return found or {"": names}


def select_data_files(names: list[str]) -> list[str]:
    """Return the names of files that hold records."""
    return [name for name in names if DATA_FILE_PATTERN.search(name)] or [
        name for name in names if JSON_FILE_PATTERN.search(name)
    ]


def card_patterns(data_files: Any, folder: str) -> NamesBySplit:
    """Return a card's `data_files`, in any of its forms, as globs by split."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    globs: NamesBySplit = {}
    for item in [data_files] if isinstance(data_files, str) else data_files or []:
        split, path = (item.get("split"), item["path"]) if isinstance(item, dict) else ("", item)
        for glob in [path] if isinstance(path, str) else path:
            globs.setdefault(split or "train", []).append(str(PurePosixPath(folder, glob)))
    return globs


def matches_any(name: str, globs: list[str]) -> bool:
    """Return whether a glob matches; `**` crosses folders, `*` and `?` do not."""
    return any(re.fullmatch(_glob_to_regex(glob), name) for glob in globs)


def _glob_to_regex(glob: str) -> str:
    regexes = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        part.replace("[!", "[^") if part.startswith("[") else regexes.get(part, re.escape(part))
        for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", glob)
    )


def select_split(found: NamesBySplit, split: str, where: str) -> set[str]:
    """Return the data files of a split; raise ValueError, naming what exists instead."""
    names = set(select_data_files(found.get(split, [])))
    if names:
        return names
    if split not in found and (others := sorted(of for of in found if of)):
        raise ValueError(f"{where} has no split {split!r}; it has {', '.join(others)} (split).")
    kinds = {PurePosixPath(name).suffix for names in found.values() for name in names} - {""}
    has = f"it has {', '.join(sorted(kinds))}" if kinds else "it is empty"
    raise ValueError(f"{where} has no .parquet, .jsonl or .json file of split {split!r}; {has}.")


def _split_from_path(path: str, split: str) -> str:
    """Return the split in a file's name, else in its nearest folder's; "" if there is none."""
    words = {split: split} | {word: split for split, words in SPLIT_WORDS.items() for word in words}
    for part in reversed(path.lower().split("/")):
        for word, split in words.items():
            if re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", part):
                return split
    return ""
