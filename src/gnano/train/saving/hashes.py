"""Is every byte still what was written? `files.json`: size and SHA-256 of each file of a folder."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gnano.train.saving.folders import FILES
from gnano.utils.atomic_io import sync
from gnano.utils.host import drop_from_page_cache

AT_ONCE = 4  # files: a processor hashes 1 to 2 GB/s, a good disk reads more


def write_hashes(folder: Path) -> None:
    """List every file of the folder, and force all of it to disk."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(sha256_of, files))
    hashes = {
        str(file.relative_to(folder)): [file.stat().st_size, sha256]
        for file, sha256 in zip(files, found, strict=True)
    }
    (folder / FILES).write_text(json.dumps(hashes, indent=2) + "\n", "utf-8")
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def verify(folder: Path, from_disk: bool = False) -> None:
    """Hold every file against `files.json`; raises ValueError naming the first that differs.

    `from_disk`: what the system still holds in memory is to be read from the disk again.
    """
    listed = list(_sized(folder))
    if from_disk:
        for path, _ in listed:
            drop_from_page_cache(path)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(sha256_of, [path for path, _ in listed]))
    for (path, sha256), now in zip(listed, found, strict=True):
        if now != sha256:
            raise ValueError(f"{path} does not match its checksum: it is damaged.")


def verify_sizes(folder: Path) -> None:
    """The same in no time, and less: every file is there, and none is cut short."""
    for _ in _sized(folder):
        pass


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sized(folder: Path) -> Iterator[tuple[Path, str]]:
    """The listed files, which have their size, and their hashes."""
    try:
        hashes = json.loads((folder / FILES).read_text("utf-8"))
        listed = {folder / name: (int(size), str(sha)) for name, (size, sha) in hashes.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / FILES} cannot be read ({error}).") from None
    for path, (size, sha256) in listed.items():
        if not path.is_file():
            raise ValueError(f"{path} is missing from the checkpoint.")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes where {size:,} were written: "
                f"it is cut short or was replaced."
            )
        yield path, sha256
