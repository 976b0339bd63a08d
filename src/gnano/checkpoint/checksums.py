"""Checksums of a folder: `files.json` lists the size and SHA-256 of each file."""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gnano.utils.files import fsync_path
from gnano.utils.platform_support import drop_from_page_cache

CHECKSUMS_FILE = "files.json"
HASH_THREADS = 4  # a core hashes 1 to 2 GB/s, a good disk reads more


def write_checksums(folder: Path) -> None:
    """Write the checksums of every file of the folder, and force all of it to disk."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {
        str(file.relative_to(folder)): [file.stat().st_size, sha256]
        for file, sha256 in zip(files, _sha256_files(files), strict=True)
    }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(hashes, indent=2) + "\n", "utf-8")
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


def verify_checksums(folder: Path, from_disk: bool = False) -> None:
    """Compare every file with `files.json`; raise ValueError naming the first that differs.

    `from_disk` drops the files from the page cache first, so that the disk itself is read.
    """
    expected = verify_file_sizes(folder)
    if from_disk:
        for path in expected:
            drop_from_page_cache(path)
    for path, sha256 in zip(expected, _sha256_files(expected), strict=True):
        if sha256 != expected[path]:
            raise ValueError(f"{path} does not match its checksum: it is damaged.")


def verify_file_sizes(folder: Path) -> dict[Path, str]:
    """Check only that every file exists and has its size; return the expected hashes."""
    expected = {}
    for path, (size, sha256) in _read_checksums(folder).items():
        if not path.is_file():
            raise ValueError(f"{path} is missing from the checkpoint.")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, but {size:,} were written: "
                f"it is truncated or was replaced."
            )
        expected[path] = sha256
    return expected


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_files(files: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(HASH_THREADS) as threads:
        return list(threads.map(sha256_file, files))


def _read_checksums(folder: Path) -> dict[Path, tuple[int, str]]:
    try:
        listed = json.loads((folder / CHECKSUMS_FILE).read_text("utf-8"))
        return {folder / name: (int(size), str(sha)) for name, (size, sha) in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CHECKSUMS_FILE} cannot be read ({error}).") from None
