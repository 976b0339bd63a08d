"""Finds the model that a name stands for, as a folder that every command reads.

    runs/demo, a checkpoint, a model folder      itself
    model.gguf, model.pt, model.safetensors      converted once, into the cache
    owner/name[@revision]                        the Hub's model, in the Hub's own cache
    owner/name[@revision]:FILE                   one of its weight files, converted once

A path that exists is never looked up on the Hub. Only what a model needs is downloaded: its
config, tokenizer and chat template, and one form of its weights. With HF_HUB_OFFLINE, or where the
Hub is unreachable, the cache is used. A repository without config.json, such as the published
reference model's, holds only weight files: the base in safetensors is taken unless FILE names
another.
"""

import fcntl
import hashlib
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from gnano.config.hf_config import sliding_window

HUB_NAME = re.compile(r"([\w-][\w.-]*)/([\w-][\w.-]*)(?:@([^\s:@]+))?(?::([^\s:]+))?", re.ASCII)
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".gguf")
MODEL_FILES = re.compile(  # what a model has beside its weights
    r"(generation_)?config\.json|tokenizer.*|vocab\.json|merges\.txt|special_tokens_map\.json"
    r"|added_tokens\.json|chat_template\..*|template\.json"
)
# forms of a folder's weights, of which the first is taken; shards come with their index
FOLDER_WEIGHTS = (
    r"model\.safetensors",
    r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors",
    r"pytorch_model\.bin",
    r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin",
)
# the base model's file in a repository without config.json, of which the first is taken
LONE_WEIGHTS = ("model.safetensors", "model_bf16.pt", "model_latest.pt")
MAX_LISTING_ATTEMPTS = 3  # then the cache is used
CONVERTED_FOLDER = "gnano"  # in HF_HOME

Notify = Callable[[str], None]


def resolve_model(name: str | Path, notify: Notify = lambda _: None) -> Path:
    """Return the run or folder of a model, after downloading or converting it if necessary.

    A name that can only be a path is returned unchanged, even if nothing is there: its reader
    reports that. Raises ValueError or OSError, as a sentence, where the Hub has no such model, it
    may not be read, or its files are none of a model.
    """
    path = _find_model(name, notify)
    if (config := path / "config.json").is_file():
        from gnano.model.hf_io import read_json_object

        with suppress(ValueError, OSError):  # the model's reader reports it
            if window := sliding_window(read_json_object(config)):
                notify(f"The sliding window of {window:,} tokens is not used: no text is longer.")
    return path


def _find_model(name: str | Path, notify: Notify) -> Path:
    path, match = Path(name), HUB_NAME.fullmatch(str(name))
    if path.exists():
        cached = Path(constants.HF_HUB_CACHE, f"models--{path.parent}--{path.name}")
        if match and cached.is_dir():
            notify(f"{name} is read from the folder of that name, not from the Hub.")
        if path.is_file() and path.suffix in WEIGHT_SUFFIXES:
            status = path.stat()
            return _convert(path, f"{path.resolve()} {status.st_size} {status.st_mtime_ns}", notify)
        return path
    if match is None or Path(match[1]).is_dir():  # the folder is here, so it is a path
        return path
    owner, repo, revision, file = match.groups()
    return _download(f"{owner}/{repo}", revision or "main", file, notify)


def is_commit_of(folder: Path, name: str) -> bool:
    """Return whether a folder of the Hub's cache holds a commit of the model of this name."""
    match = HUB_NAME.fullmatch(name)
    repo = f"models--{match[1]}--{match[2]}" if match and not match[4] else ""
    return folder.parent.name == "snapshots" and folder.parent.parent.name == repo


def _download(repo: str, revision: str, file: str | None, notify: Notify) -> Path:
    """Download a model of the Hub, or one weight file of it, and return its folder."""
    from huggingface_hub import HfApi

    from gnano.utils.hf_errors import MAX_DOWNLOAD_ATTEMPTS, hub_endpoint, request_with_retries

    url = f"{hub_endpoint()}/api/models/{repo}/revision/{revision}"
    cached: Path | None = None
    try:
        info = request_with_retries(
            lambda: HfApi().model_info(repo, revision=revision), repo, url, MAX_LISTING_ATTEMPTS
        )
        names = [sibling.rfilename for sibling in info.siblings or ()]
    except (ConnectionError, ValueError) as error:
        if not (constants.HF_HUB_OFFLINE or isinstance(error, ConnectionError)):
            raise
        cached = _find_cached(repo, revision, file)
        if cached is None:
            raise type(error)(f"There is no {repo} here. {error}") from None
        if not constants.HF_HUB_OFFLINE:
            notify(f"The Hub is unreachable; {repo} is read from the cache.")
        names = [path.name for path in cached.iterdir()]
    needed = [name for name in names if MODEL_FILES.fullmatch(name)]
    if file is None and "config.json" in names:
        forms = ([name for name in names if re.fullmatch(form, name)] for form in FOLDER_WEIGHTS)
        needed += next(filter(None, forms), [])
    else:
        file = _choose_weight_file(repo, names, file)
        needed.append(file)
    folder = cached or Path(
        request_with_retries(
            lambda: _fetch_snapshot(repo, revision, needed), repo, url, MAX_DOWNLOAD_ATTEMPTS
        )
    )
    if file is None:
        return folder
    has_tokenizer = "tokenizer.json" in needed and not file.endswith(".gguf")
    key = f"{repo} {folder.name} {file}"
    return _convert(folder / file, key, notify, folder if has_tokenizer else None)


def _find_cached(repo: str, revision: str, file: str | None) -> Path | None:
    """Return the folder of this revision in the Hub's cache, or None if it has no such model."""
    from huggingface_hub import try_to_load_from_cache

    for name in [file] if file else ["config.json", *LONE_WEIGHTS]:
        cached: Any = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached).parents[name.count("/")]
    return None


def _choose_weight_file(repo: str, names: list[str], file: str | None) -> str:
    weights = sorted(name for name in names if name.endswith(WEIGHT_SUFFIXES))
    if file in weights:
        return file
    listed = ", ".join(weights) or "none"
    if file:
        raise ValueError(f"{repo} has no weight file {file}; it has {listed}.")
    if not weights:
        raise ValueError(f"{repo} is not a model: it has no config.json and no weight file.")
    if base := next((name for name in LONE_WEIGHTS if name in weights), ""):
        return base
    if len(weights) > 1:
        raise ValueError(f"{repo} has several weight files, {listed}: name one ({repo}:FILE).")
    return weights[0]


def _fetch_snapshot(repo: str, revision: str, names: list[str]) -> str:
    """Download these files, with a progress bar on a terminal, and return their folder."""
    from huggingface_hub import snapshot_download, utils
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        return snapshot_download(repo, revision=revision, allow_patterns=list(map(escape, names)))
    except LocalEntryNotFoundError as error:  # hides why the download failed
        raise error.__cause__ or error from None


def _convert(file: Path, key: str, notify: Notify, tokenizer_folder: Path | None = None) -> Path:
    """Import a weight file into the cache, unless it is there under this key."""
    from gnano.export.importing import import_model  # loads torch

    cache = Path(constants.HF_HOME, CONVERTED_FOLDER)
    out = cache / f"{file.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not out.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # one process converts, others wait for it
        with (cache / ".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not out.exists():
                notify(f"Converting {file} into {out}, once.")
                import_model(file, out, tokenizer_folder=tokenizer_folder)
    return out
