"""Token shards on disk: the ids of documents, and where each document starts.

    00000.tokens   little-endian uint16, or uint32 where a vocabulary has more than 65,536 ids:
                   <eot> document <eot> document …
    00000.docs     little-endian uint32: position of each document's end-of-text token

End-of-text comes first: the first token of a document is then predicted from "a new document
starts", and generation starts from it. Files are written under a temporary name and renamed when
complete. Their SHA-256 is in the manifest and is checked when a shard is first read.
"""

import hashlib
import mmap
import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from gnano.utils.files import atomic_write_bytes

OFFSET_DTYPE = np.dtype("<u4")

Tokens = np.ndarray[tuple[int], np.dtype[Any]]
Offsets = np.ndarray[tuple[int], np.dtype[np.uint32]]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What the manifest stores about one shard."""

    name: str  # file name without the extension
    tokens: int
    documents: int
    bytes: int  # UTF-8 bytes of the text
    sha256_tokens: str
    sha256_docs: str
    id_bytes: int = 2  # 4 for ids of more than 16 bits

    def __post_init__(self) -> None:
        if self.id_bytes not in (2, 4):
            raise ValueError(f"id_bytes is {self.id_bytes}; it must be 2 or 4")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its ids."""
        return np.dtype(f"<u{self.id_bytes}")


def omit_id_bytes(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return fields as a dict, for `asdict`: ids of 16 bits, the usual, are not stated."""
    return {key: value for key, value in items if (key, value) != ("id_bytes", 2)}


class ShardWriter:
    """Writes one shard; its files appear on `finish`."""

    def __init__(self, folder: Path, name: str, end_of_text: int, vocab_size: int) -> None:
        self.folder, self.name = folder, name
        self.id_bytes = 2 if vocab_size <= 2**16 else 4
        self.dtype = np.dtype(f"<u{self.id_bytes}")
        self.vocab_size = vocab_size
        self.end_of_text = np.array([end_of_text], self.dtype).tobytes()
        self.tokens = self.bytes = 0
        self.offsets = array("I")
        self.hash = hashlib.sha256()
        self.partial = folder / f"{name}.tokens.partial"
        self.file = self.partial.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, ids: NDArray[Any], size: int) -> None:
        """Append a document's ids; `size` is its length in UTF-8 bytes."""
        is_known = ids.max(initial=0) < self.vocab_size and ids.min(initial=0) >= 0
        assert is_known, "an id outside the vocabulary"
        self.offsets.append(self.tokens)
        data = self.end_of_text + ids.astype(self.dtype).tobytes()
        self.hash.update(data)
        self.file.write(data)
        self.tokens += len(ids) + 1
        self.bytes += size

    def finish(self) -> ShardInfo:
        """Sync and rename the files; return their description."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        starts = np.array(self.offsets, dtype=OFFSET_DTYPE).tobytes()
        atomic_write_bytes(self.folder / f"{self.name}.docs", starts)
        self.partial.replace(self.folder / f"{self.name}.tokens")
        return ShardInfo(
            name=self.name,
            tokens=self.tokens,
            documents=len(self.offsets),
            bytes=self.bytes,
            sha256_tokens=self.hash.hexdigest(),
            sha256_docs=hashlib.sha256(starts).hexdigest(),
            id_bytes=self.id_bytes,
        )


def has_all_shard_files(folder: Path, shard: ShardInfo) -> bool:
    """Return whether both files exist with the right size; their content is not checked."""
    sizes = {
        "tokens": shard.tokens * shard.id_bytes,
        "docs": shard.documents * OFFSET_DTYPE.itemsize,
    }
    paths = {folder / f"{shard.name}.{suffix}": size for suffix, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def open_shard_file(
    folder: Path, shard: ShardInfo, kind: Literal["tokens", "docs"], verify: bool = True
) -> np.ndarray[tuple[int], np.dtype[Any]]:
    """Map a shard's ids or document starts read-only, after checking size and checksum."""
    path = folder / f"{shard.name}.{kind}"
    dtype: np.dtype[Any] = shard.dtype if kind == "tokens" else OFFSET_DTYPE
    sha256 = shard.sha256_tokens if kind == "tokens" else shard.sha256_docs
    count = shard.tokens if kind == "tokens" else shard.documents
    advice = f"Delete {path.stem}.* in {path.parent} and run the same `gnano prepare` again."
    if not path.is_file():
        raise ValueError(f"{path} is missing, though manifest.json lists it. {advice}")
    size = path.stat().st_size
    expected = count * dtype.itemsize
    if size != expected:
        raise ValueError(
            f"{path} has {size:,} bytes, and manifest.json says {expected:,}: "
            f"the file is truncated or another one. {advice}"
        )
    if not count:
        return np.empty(0, dtype)
    with path.open("rb") as file:
        # read in large pieces, which also fills the page cache for the map
        if verify and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(
                f"{path} does not match its checksum in manifest.json: damaged. {advice}"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # rows are read in random order: reading ahead would cost 20 ms for 2 KB of an uncached file
    mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype)
