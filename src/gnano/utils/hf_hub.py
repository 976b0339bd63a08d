"""Finds the files of a split by a repository's card, or else by the files' names.

    card: {config_name, data_dir, data_files} ─▶ patterns by split ─▶ names that they match
    no card: python/train-00000-of-00059.parquet, data/test/a.jsonl ─▶ the split in the name

A card's words are those of https://huggingface.co/docs/hub/datasets-manual-configuration,
and so are the words for a split in a name. Everything here is about names alone.

Reads data sets of the Hub: which files they hold, whether we may read them, their download.

    resolve ─▶ commit, files ── check ─▶ rights, column, rows ── download ─▶ a file on disk

A commit never changes, so a file's name, size and hash in it are a promise to hold the
bytes against. The Hub's client gives the endpoint, the token, the session and the errors.
The requests are ours, because the client's own downloads start anew in every process:
plain HTTP into `NAME.incomplete`, which a later range request continues.
"""

import hashlib
import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from huggingface_hub import constants, get_hf_file_metadata, utils

from gnano.utils.hf_errors import (
    MAX_DOWNLOAD_ATTEMPTS,
    NotInRepositoryError,
    hub_endpoint,
    request_with_retries,
)

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


JSONL_HEAD_BYTES, PARQUET_TAIL_BYTES = (
    2**16,
    2**16,
)  # bytes of a JSONL and of a Parquet file that its check reads first
MAX_PARQUET_FOOTER_BYTES = 2**28  # bytes; a Parquet file that claims a longer footer is damaged


class HubFile(NamedTuple):
    name: str  # path in the repository
    size: int  # bytes
    checksum: str  # LFS sha256 if it has one, else the git blob id


def resolve_dataset(repo: str, config: str, split: str, revision: str) -> tuple[str, list[HubFile]]:
    """Commit SHA of the revision, and the data files of this config (or folder) and split.

    Raises ValueError for what is not there or may not be read, naming what there is instead;
    ConnectionError where the Hub cannot be reached.
    """
    utils.validate_repo_id(repo)
    root = f"{hub_endpoint()}/api/datasets/{repo}"
    info, _ = _get_json(repo, f"{root}/revision/{quote(revision, safe='')}")
    commit, card = str(info["sha"]), info.get("cardData") or {}
    configs = {str(c["config_name"]): c for c in card.get("configs") or [] if "config_name" in c}
    tree = f"{root}/tree/{commit}"
    if config not in configs:
        try:
            files = _list_files(repo, tree, config.strip("/"))
        except NotInRepositoryError:
            there = sorted(configs.keys() | _list_folders(repo, tree))
            raise ValueError(
                f"{repo} has no configuration or folder {config!r}; it has "
                f"{', '.join(there) or 'none'} (config)."
            ) from None
        found = group_by_split([file.name for file in files], split, config.strip("/"))
    else:
        files, found = _files_of_config(repo, tree, configs[config], split)
    names = select_split(found, split, f"{repo} {config}".strip())
    return commit, [file for file in files if file.name in names]


def check_file(repo: str, commit: str, file: HubFile, column: str) -> None:
    """Look before the download: our rights to this file, its column of text, its first row.

    Raises ValueError with what to do. Reads a Parquet file's footer or the first lines of a
    JSONL file; packed files (.gz, .zst) are asked for, not read.
    """
    url = _file_url(repo, commit, file)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    request_with_retries(lambda: get_hf_file_metadata(url, timeout=timeout), repo, url)
    if file.size == 0:
        raise ValueError(f"{repo} {file.name} has no rows: it is empty.")
    if file.name.endswith(".parquet"):
        _check_parquet(repo, url, file, column)
    elif not file.name.endswith((".gz", ".zst")):
        _check_jsonl(repo, url, file, column)


def download_file(repo: str, commit: str, file: HubFile, folder: Path) -> Path:
    """The file as `folder/NAME`, whole and checked; what an earlier try has left is continued.

    Raises ValueError for what may not be read or is not what the Hub's list promises,
    ConnectionError when no more of it comes.
    """
    if ".." in PurePosixPath(file.name).parts or PurePosixPath(file.name).is_absolute():
        raise ValueError(f"{repo} names a file {file.name!r}, which would leave {folder}.")
    target = folder / file.name
    if _matches_checksum(target, file):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".incomplete")
    url = _file_url(repo, commit, file)
    for _ in range(2):  # what is left of an older commit, or was damaged on its way, comes anew
        request_with_retries(
            lambda: _resume_download(url, part),
            repo,
            url,
            MAX_DOWNLOAD_ATTEMPTS,
            lambda: _file_size(part),
        )
        if _matches_checksum(part, file):
            return part.replace(target)
        part.unlink()
    raise ValueError(
        f"{url} came twice with other bytes than the Hub's list promises ({file.size:,} bytes, "
        f"hash {file.checksum}): a proxy or mirror on the way may change it (HF_ENDPOINT)."
    )


def _file_url(repo: str, commit: str, file: HubFile) -> str:
    return f"{hub_endpoint()}/datasets/{repo}/resolve/{commit}/{quote(file.name)}"


def _request_options(first_byte: int = 0, last_byte: int | None = None) -> dict[str, Any]:
    """The token and our patience; and which bytes, never packed: ranges count what is sent."""
    headers = utils.build_hf_headers()
    if first_byte or last_byte is not None:
        headers["Range"] = f"bytes={first_byte}-{'' if last_byte is None else last_byte}"
    headers["Accept-Encoding"] = "identity"
    # without one, the client's session would wait for a silent server for ever
    return {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}


def _get_json(repo: str, url: str) -> tuple[Any, str]:
    """An answer of the Hub's API, and the address of its next page or ''."""

    def request() -> Any:
        response = utils.get_session().get(url, **_request_options())
        utils.hf_raise_for_status(response)
        return response

    response = request_with_retries(request, repo, url)
    try:
        return response.json(), response.links.get("next", {}).get("url", "")
    except ValueError:
        raise ValueError(
            f"{url} does not answer as the Hub does; check HF_ENDPOINT, and whether the network "
            f"asks for a login."
        ) from None


def _list_tree(repo: str, tree: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    path = f"/{quote(folder, safe='')}" if folder else ""
    url = f"{tree}{path}?recursive={recursive}"
    while url:
        page, url = _get_json(repo, url)
        entries += page
    return entries


def _list_files(repo: str, tree: str, folder: str) -> list[HubFile]:
    return sorted(
        HubFile(entry["path"], entry["size"], (entry.get("lfs") or entry)["oid"])
        for entry in _list_tree(repo, tree, folder, recursive=True)
        if entry["type"] == "file"
    )


def _list_folders(repo: str, tree: str) -> set[str]:
    entries = _list_tree(repo, tree, "", recursive=False)
    return {entry["path"] for entry in entries if entry["type"] == "directory"}


def _files_of_config(
    repo: str, tree: str, config: dict[str, Any], split: str
) -> tuple[list[HubFile], dict[str, list[str]]]:
    """The files where a configuration of the card looks, and which of them are of which split."""
    folder = str(config.get("data_dir") or "").strip("./")
    globs = card_patterns(config.get("data_files"), folder)
    starts = {literal_prefix(glob) for glob in globs.get(split, [])} if globs else {folder}
    files = sorted({file for start in starts for file in _list_files(repo, tree, start)})
    names = [file.name for file in files]
    if not globs:
        return files, group_by_split(names, split, folder)
    return files, {of: [n for n in names if matches_any(n, globs[of])] for of in globs}


def _read_range(repo: str, url: str, first: int, last: int) -> bytes:
    """Bytes `first` up to and with `last`, and never the whole file instead."""

    def request() -> bytes:
        with utils.get_session().stream("GET", url, **_request_options(first, last)) as response:
            utils.hf_raise_for_status(response)
            if response.status_code != 206:
                raise ValueError(f"{url} cannot be read in parts; check HF_ENDPOINT.")
            return bytes(response.read())

    return request_with_retries(request, repo, url)


def _check_parquet(repo: str, url: str, file: HubFile, column: str) -> None:
    import pyarrow
    from pyarrow import parquet

    # the file ends with its footer, the footer's length in 4 bytes, and "PAR1"
    tail = _read_range(repo, url, max(file.size - PARQUET_TAIL_BYTES, 0), file.size - 1)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < length <= min(file.size, MAX_PARQUET_FOOTER_BYTES):
        tail = _read_range(repo, url, file.size - length, file.size - 1)
    try:
        about = parquet.read_metadata(io.BytesIO(tail))
        schema = about.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{repo} {file.name} is not a readable Parquet file: {why}.") from None
    if column not in schema.names:
        raise _missing_column_error(repo, file, column, schema.names)
    kind = schema.field(column).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise ValueError(f"{repo} {file.name} has {kind} in {column!r}, not text (column).")
    if about.num_rows == 0:
        raise ValueError(f"{repo} {file.name} has no rows.")


def _check_jsonl(repo: str, url: str, file: HubFile, column: str) -> None:
    head = _read_range(repo, url, 0, min(JSONL_HEAD_BYTES, file.size) - 1)
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(head) < file.size:
        del lines[-1]  # cut off
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        if len(head) == file.size:
            raise ValueError(f"{repo} {file.name} has no rows.")
        return  # a first row this long is left to the reader
    if file.name.endswith(".json") and not line.rstrip().endswith(b"}"):
        return  # a list, which is left to the reader
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{repo} {file.name} does not begin with JSON: {error}.") from None
    if not isinstance(row, dict) or column not in row:
        raise _missing_column_error(repo, file, column, list(row) if isinstance(row, dict) else [])
    if not isinstance(row[column], str | None):
        kind = type(row[column]).__name__
        raise ValueError(f"{repo} {file.name} has {kind} in {column!r}, not text (column).")


def _missing_column_error(repo: str, file: HubFile, column: str, names: list[str]) -> ValueError:
    has = ", ".join(map(repr, names)) or "none"
    return ValueError(
        f"{repo} {file.name} has no column {column!r}; it has {has}: name the one that holds the "
        f"text (column)."
    )


def _resume_download(url: str, partial: Path) -> None:
    """Continue `part` from where it ends. A cut leaves what has come."""
    have = _file_size(partial)
    with utils.get_session().stream("GET", url, **_request_options(have)) as response:
        if response.status_code == 416:  # there is no more
            return
        utils.hf_raise_for_status(response)
        # 200: the whole file is sent, from its beginning
        with partial.open("ab" if response.status_code == 206 else "wb") as out:
            for piece in response.iter_bytes():
                out.write(piece)


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _matches_checksum(path: Path, file: HubFile) -> bool:
    if not path.exists() or path.stat().st_size != file.size:
        return False
    sha256 = len(file.checksum) == 64
    with path.open("rb") as opened:
        if sha256:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.checksum
        # a git blob's id is the SHA-1 of a short header and its bytes
        blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        while piece := opened.read(2**20):
            blob.update(piece)
    return blob.hexdigest() == file.checksum
