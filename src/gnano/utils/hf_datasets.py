"""Datasets of the Hugging Face Hub: list their files, check access, download with resume.

    resolve_dataset ─▶ commit, files ── check_file ─▶ access, column, rows ── download_file ─▶ file

`huggingface_hub` provides the endpoint, the token, the session and the errors. Its own downloads
restart in every process, so files are downloaded here, by plain HTTP into `NAME.incomplete`, which
a later range request continues. Size and hash are checked: a commit never changes.

The files of a split are found by the repository's card, or else by their names:

    card: {config_name, data_dir, data_files} ─▶ globs by split ─▶ names that they match
    no card: python/train-00000-of-00059.parquet, data/test/a.jsonl ─▶ the split in the name

The keys of a card and the split words in a name are those of
https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

import functools
import hashlib
import io
import json
import re
from collections.abc import Callable
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

JSONL_HEAD_BYTES = PARQUET_TAIL_BYTES = 2**16  # the part of a file that its check reads first
MAX_PARQUET_FOOTER_BYTES = 2**28  # a Parquet file that claims a longer footer is damaged
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


class HubFile(NamedTuple):
    """A file of a dataset at one commit."""

    name: str  # path in the repository
    size: int  # bytes
    checksum: str  # LFS sha256 if it has one, else the git blob id


FilesBySplit = dict[str, list[HubFile]]  # "": their names contain no split


def resolve_dataset(repo: str, config: str, split: str, revision: str) -> tuple[str, list[HubFile]]:
    """Return the revision's commit SHA and the data files of this config (or folder) and split.

    Raises ValueError, naming what exists instead, or ConnectionError if the Hub is unreachable.
    """
    utils.validate_repo_id(repo)
    root = f"{hub_endpoint()}/api/datasets/{repo}"
    info, _ = _get_json(repo, f"{root}/revision/{quote(revision, safe='')}")
    commit, card = str(info["sha"]), info.get("cardData") or {}
    configs = {str(c["config_name"]): c for c in card.get("configs") or [] if "config_name" in c}
    tree = f"{root}/tree/{commit}"
    if config in configs:
        found = _files_of_config(repo, tree, configs[config], split)
    else:
        folder = config.strip("/")
        try:
            found = _group_by_split(_list_files(repo, tree, folder), split, folder)
        except NotInRepositoryError:
            entries, _ = _get_json(repo, f"{tree}?recursive=False")
            folders = {entry["path"] for entry in entries if entry["type"] == "directory"}
            names = ", ".join(sorted(configs.keys() | folders)) or "none"
            raise ValueError(
                f"{repo} has no configuration or folder {config!r}; it has {names} (config)."
            ) from None
    if files := _data_files(found.get(split, [])):
        return commit, files
    where = f"{repo} {config}".strip()
    if split not in found and (others := sorted(of for of in found if of)):
        raise ValueError(f"{where} has no split {split!r}; it has {', '.join(others)} (split).")
    kinds = {PurePosixPath(file.name).suffix for files in found.values() for file in files} - {""}
    has = f"it has {', '.join(sorted(kinds))}" if kinds else "it is empty"
    raise ValueError(f"{where} has no .parquet, .jsonl or .json file of split {split!r}; {has}.")


def _get_json(repo: str, url: str) -> tuple[Any, str]:
    """Return a response of the Hub's API, and the address of its next page or ""."""

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
            f"requires a login."
        ) from None


def _list_files(repo: str, tree: str, folder: str) -> list[HubFile]:
    entries: list[dict[str, Any]] = []
    path = f"/{quote(folder, safe='')}" if folder else ""
    url = f"{tree}{path}?recursive=True"
    while url:
        page, url = _get_json(repo, url)
        entries += page
    return sorted(
        HubFile(entry["path"], entry["size"], (entry.get("lfs") or entry)["oid"])
        for entry in entries
        if entry["type"] == "file"
    )


def _data_files(files: list[HubFile]) -> list[HubFile]:
    return [file for file in files if DATA_FILE_PATTERN.search(file.name)] or [
        file for file in files if JSON_FILE_PATTERN.search(file.name)
    ]


def _group_by_split(files: list[HubFile], split: str, folder: str) -> FilesBySplit:
    """Return the data files below a folder by split; all are "train" if no name has one."""
    found: FilesBySplit = {}
    for file in _data_files(files):
        found.setdefault(_split_from_path(file.name.removeprefix(folder), split), []).append(file)
    if found.keys() == {""}:
        return {"train": found[""]}
    return found or {"": files}


def _split_from_path(path: str, split: str) -> str:
    """Return the split in a file's name, else in its nearest folder's; "" if there is none."""
    words = {split: split} | {word: split for split, words in SPLIT_WORDS.items() for word in words}
    for part in reversed(path.lower().split("/")):
        for word, found in words.items():
            if re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", part):
                return found
    return ""


def _files_of_config(repo: str, tree: str, config: dict[str, Any], split: str) -> FilesBySplit:
    """Return the files of a card's configuration by split; `data_files` has several forms."""
    folder = str(config.get("data_dir") or "").strip("./")
    data_files = config.get("data_files") or []
    if isinstance(data_files, dict):
        data_files = [{"split": of, "path": path} for of, path in data_files.items()]
    globs: dict[str, list[str]] = {}
    for item in [data_files] if isinstance(data_files, str) else data_files:
        of, path = (item.get("split"), item["path"]) if isinstance(item, dict) else ("", item)
        for glob in [path] if isinstance(path, str) else path:
            globs.setdefault(of or "train", []).append(str(PurePosixPath(folder, glob)))
    if not globs:
        return _group_by_split(_list_files(repo, tree, folder), split, folder)
    # the folders that contain all files of the globs
    prefixes = {re.split(r"[*?\[]", glob)[0].rpartition("/")[0] for glob in globs.get(split, [])}
    files = sorted({file for prefix in prefixes for file in _list_files(repo, tree, prefix)})
    regexes = {of: "|".join(map(glob_to_regex, globs[of])) for of in globs}
    return {of: [f for f in files if re.fullmatch(regexes[of], f.name)] for of in globs}


def glob_to_regex(glob: str) -> str:
    """Return the regular expression of a glob; `**` crosses folders, `*` and `?` do not."""
    regexes = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        part.replace("[!", "[^") if part.startswith("[") else regexes.get(part, re.escape(part))
        for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", glob)
    )


def check_file(repo: str, commit: str, file: HubFile, column: str) -> None:
    """Check access to a file, its text column and its first row; raise ValueError otherwise.

    Reads a Parquet file's footer or the first lines of a JSONL file; of compressed files only the
    access is checked.
    """
    url, where = _file_url(repo, commit, file), f"{repo} {file.name}"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    request_with_retries(lambda: get_hf_file_metadata(url, timeout=timeout), repo, url)
    if file.size == 0:
        raise ValueError(f"{where} has no rows: it is empty.")
    if file.name.endswith((".gz", ".zst")):
        return
    read_columns = _parquet_columns if file.name.endswith(".parquet") else _jsonl_columns
    kinds = read_columns(functools.partial(_read_range, repo, url), file, where)
    if kinds is None:
        return
    if column not in kinds:
        has = ", ".join(map(repr, kinds)) or "none"
        raise ValueError(
            f"{where} has no column {column!r}; it has {has}: name the one that holds the text "
            f"(column)."
        )
    if kinds[column]:
        raise ValueError(f"{where} has {kinds[column]} in {column!r}, not text (column).")


def _read_range(repo: str, url: str, first: int, last: int) -> bytes:
    """Return bytes `first` to `last`, inclusive.

    Raises ValueError where the server would send the complete file.
    """

    def request() -> bytes:
        with utils.get_session().stream("GET", url, **_request_options(first, last)) as response:
            utils.hf_raise_for_status(response)
            if response.status_code != 206:
                raise ValueError(f"{url} does not support range requests; check HF_ENDPOINT.")
            return bytes(response.read())

    return request_with_retries(request, repo, url)


def _parquet_columns(
    read_range: Callable[[int, int], bytes], file: HubFile, where: str
) -> dict[str, str]:
    """Return the type of each column, "" for text."""
    import pyarrow
    from pyarrow import parquet, types

    # the file ends with its footer, the footer's length in 4 bytes, and "PAR1"
    tail = read_range(max(file.size - PARQUET_TAIL_BYTES, 0), file.size - 1)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < length <= min(file.size, MAX_PARQUET_FOOTER_BYTES):
        tail = read_range(file.size - length, file.size - 1)
    try:
        metadata = parquet.read_metadata(io.BytesIO(tail))
        schema = metadata.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{where} is not a readable Parquet file: {reason}.") from None
    if metadata.num_rows == 0:
        raise ValueError(f"{where} has no rows.")
    kinds = {}
    for column in schema:
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        kinds[column.name] = "" if is_text else str(kind)
    return kinds


def _jsonl_columns(
    read_range: Callable[[int, int], bytes], file: HubFile, where: str
) -> dict[str, str] | None:
    """Return the type of each value of the first row, "" for text; None if the reader checks it."""
    head = read_range(0, min(JSONL_HEAD_BYTES, file.size) - 1)
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(head) < file.size:
        del lines[-1]  # incomplete
    line = next((line for line in lines if line.strip()), None)
    if line is None and len(head) == file.size:
        raise ValueError(f"{where} has no rows.")
    is_list = file.name.endswith(".json") and line and not line.rstrip().endswith(b"}")
    if line is None or is_list:
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} does not start with JSON: {error}.") from None
    values = row.items() if isinstance(row, dict) else ()
    return {
        name: "" if isinstance(value, str | None) else type(value).__name__
        for name, value in values
    }


def download_file(repo: str, commit: str, file: HubFile, folder: Path) -> Path:
    """Download a file as `folder/NAME`, checked; an interrupted download is continued.

    Raises ValueError if it may not be read or differs from the Hub's listing, ConnectionError when
    the connection fails for good.
    """
    if ".." in PurePosixPath(file.name).parts or PurePosixPath(file.name).is_absolute():
        raise ValueError(f"{repo} names a file {file.name!r}, which would be outside {folder}.")
    target = folder / file.name
    if _matches_checksum(target, file):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".incomplete")
    url = _file_url(repo, commit, file)

    def received() -> int:
        return partial.stat().st_size if partial.exists() else 0

    def resume() -> None:
        """Continue the partial file from its end; a broken connection keeps what it received."""
        with utils.get_session().stream("GET", url, **_request_options(received())) as response:
            if response.status_code == 416:  # the file is complete
                return
            utils.hf_raise_for_status(response)
            # 200: the server sends the file from its start
            with partial.open("ab" if response.status_code == 206 else "wb") as out:
                for piece in response.iter_bytes():
                    out.write(piece)

    for _ in range(2):  # a rest of an older commit, or a damaged one, is downloaded again
        request_with_retries(resume, repo, url, MAX_DOWNLOAD_ATTEMPTS, received)
        if _matches_checksum(partial, file):
            return partial.replace(target)
        partial.unlink()
    raise ValueError(
        f"{url} was downloaded twice with other bytes than the Hub lists ({file.size:,} bytes, "
        f"hash {file.checksum}): a proxy or mirror may change it (HF_ENDPOINT)."
    )


def _file_url(repo: str, commit: str, file: HubFile) -> str:
    return f"{hub_endpoint()}/datasets/{repo}/resolve/{commit}/{quote(file.name)}"


def _request_options(first_byte: int = 0, last_byte: int | None = None) -> dict[str, Any]:
    """Return headers (token, byte range, no compression: ranges count sent bytes) and timeout."""
    headers = utils.build_hf_headers()
    if first_byte or last_byte is not None:
        headers["Range"] = f"bytes={first_byte}-{'' if last_byte is None else last_byte}"
    headers["Accept-Encoding"] = "identity"
    # without a timeout, the client's session would wait for a silent server forever
    return {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}


def _matches_checksum(path: Path, file: HubFile) -> bool:
    if not path.exists() or path.stat().st_size != file.size:
        return False
    # an id of 64 digits is LFS's SHA-256; a git blob's is the SHA-1 of a short header and its bytes
    digest = (
        hashlib.sha256()
        if len(file.checksum) == 64
        else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    )
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: digest).hexdigest() == file.checksum
