"""Datasets of the Hugging Face Hub: list their files, check access, download with resume.

    resolve_dataset ─▶ commit, files ── check_file ─▶ access, column, rows ── download_file ─▶ file

`huggingface_hub` provides the endpoint, the token, the session and the errors. Its own downloads
restart in every process, so files are downloaded here, by plain HTTP into `NAME.incomplete`, which
a later range request continues. Size and hash are checked: a commit never changes.
"""

import functools
import hashlib
import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from huggingface_hub import constants, get_hf_file_metadata, utils

from gnano.utils.hf_dataset_splits import (
    NamesBySplit,
    card_patterns,
    group_by_split,
    matches_any,
    select_split,
)
from gnano.utils.hf_errors import (
    MAX_DOWNLOAD_ATTEMPTS,
    NotInRepositoryError,
    hub_endpoint,
    request_with_retries,
)

JSONL_HEAD_BYTES = PARQUET_TAIL_BYTES = 2**16  # the part of a file that its check reads first
MAX_PARQUET_FOOTER_BYTES = 2**28  # a Parquet file that claims a longer footer is damaged


class HubFile(NamedTuple):
    """A file of a dataset at one commit."""

    name: str  # path in the repository
    size: int  # bytes
    checksum: str  # LFS sha256 if it has one, else the git blob id


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
    if config not in configs:
        try:
            files = _list_files(repo, tree, config.strip("/"))
        except NotInRepositoryError:
            entries = _list_tree(repo, tree, "", recursive=False)
            folders = {entry["path"] for entry in entries if entry["type"] == "directory"}
            names = sorted(configs.keys() | folders)
            raise ValueError(
                f"{repo} has no configuration or folder {config!r}; it has "
                f"{', '.join(names) or 'none'} (config)."
            ) from None
        by_split = group_by_split([file.name for file in files], split, config.strip("/"))
    else:
        files, by_split = _files_of_config(repo, tree, configs[config], split)
    selected = select_split(by_split, split, f"{repo} {config}".strip())
    return commit, [file for file in files if file.name in selected]


def check_file(repo: str, commit: str, file: HubFile, column: str) -> None:
    """Check access to a file, its text column and its first row; raise ValueError otherwise.

    Reads a Parquet file's footer or the first lines of a JSONL file; of compressed files only the
    access is checked.
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
    resume = functools.partial(_resume_download, url, partial)
    received = functools.partial(_file_size, partial)
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


def _files_of_config(
    repo: str, tree: str, config: dict[str, Any], split: str
) -> tuple[list[HubFile], NamesBySplit]:
    """Return the files below a card configuration's folders, and their names by split."""
    folder = str(config.get("data_dir") or "").strip("./")
    globs = card_patterns(config.get("data_files"), folder)
    # the folders that contain all files of the globs
    prefixes = {re.split(r"[*?\[]", glob)[0].rpartition("/")[0] for glob in globs.get(split, [])}
    prefixes = prefixes if globs else {folder}
    files = sorted({file for prefix in prefixes for file in _list_files(repo, tree, prefix)})
    names = [file.name for file in files]
    if not globs:
        return files, group_by_split(names, split, folder)
    return files, {of: [n for n in names if matches_any(n, globs[of])] for of in globs}


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


def _check_parquet(repo: str, url: str, file: HubFile, column: str) -> None:
    import pyarrow
    from pyarrow import parquet

    # the file ends with its footer, the footer's length in 4 bytes, and "PAR1"
    tail = _read_range(repo, url, max(file.size - PARQUET_TAIL_BYTES, 0), file.size - 1)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < length <= min(file.size, MAX_PARQUET_FOOTER_BYTES):
        tail = _read_range(repo, url, file.size - length, file.size - 1)
    try:
        metadata = parquet.read_metadata(io.BytesIO(tail))
        schema = metadata.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{repo} {file.name} is not a readable Parquet file: {reason}.") from None
    if column not in schema.names:
        raise _missing_column_error(repo, file, column, schema.names)
    kind = schema.field(column).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise ValueError(f"{repo} {file.name} has {kind} in {column!r}, not text (column).")
    if metadata.num_rows == 0:
        raise ValueError(f"{repo} {file.name} has no rows.")


def _check_jsonl(repo: str, url: str, file: HubFile, column: str) -> None:
    head = _read_range(repo, url, 0, min(JSONL_HEAD_BYTES, file.size) - 1)
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(head) < file.size:
        del lines[-1]  # incomplete
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        if len(head) == file.size:
            raise ValueError(f"{repo} {file.name} has no rows.")
        return  # the reader checks a first row this long
    if file.name.endswith(".json") and not line.rstrip().endswith(b"}"):
        return  # the reader checks a list
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{repo} {file.name} does not start with JSON: {error}.") from None
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
    """Continue a partial file from its end; a broken connection keeps the received bytes."""
    have = _file_size(partial)
    with utils.get_session().stream("GET", url, **_request_options(have)) as response:
        if response.status_code == 416:  # the file is complete
            return
        utils.hf_raise_for_status(response)
        # 200: the server sends the file from its start
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
