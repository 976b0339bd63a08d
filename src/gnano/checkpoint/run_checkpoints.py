"""The checkpoints of a run on disk: found, locked, verified and removed; loads without torch.

A folder's `files.json` lists the size and SHA-256 of each of its files. A process that reads a
checkpoint holds a shared lock on that list until it ends or unlocks it; retention skips a locked
checkpoint and removes it at a later save. It keeps the newest few, every n-th and the best:

    keep_last = 2, keep_every = 1,000, keep_best
        500  1,000  1,500  2,000  2,500  3,000  3,500
        ×    every  ×      every  best   newest newest
"""

import fcntl
import hashlib
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, TypeVar

from gnano.utils.files import fsync_path, try_lock
from gnano.utils.platform_support import drop_from_page_cache

CHECKPOINTS_DIR = "checkpoints"
CHECKSUMS_FILE = "files.json"
TRAINER_DIR = "trainer"  # in a checkpoint: what only training needs
STATE_FILE = "state.json"  # in TRAINER_DIR
ADAPTER_DIR = "adapter"  # in a checkpoint of a run with train.lora: the adapter
HASH_THREADS = 4  # a core hashes 1 to 2 GB/s, a good disk reads more
_locked_files: dict[Path, IO[bytes]] = {}  # with this process's locks, by checkpoint
T = TypeVar("T")


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders of the run's complete checkpoints, oldest first."""
    found = (run / CHECKPOINTS_DIR).glob("step-*") if (run / CHECKPOINTS_DIR).is_dir() else ()
    return sorted(p for p in found if re.fullmatch(r"step-\d{8}", p.name) and p.is_dir())


def checkpoint_step(folder: Path) -> int:
    """Return the step of a checkpoint, from its name."""
    return int(folder.name.removeprefix("step-"))


def model_name(folder: Path) -> str:
    """Return a short name of a model folder: of its run, its repository on the Hub, or its own."""
    if folder.parent.name == CHECKPOINTS_DIR:
        return folder.parent.parent.name
    if folder.parent.name == "snapshots":  # as in the Hub's cache: models--OWNER--NAME/snapshots/…
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def find_checkpoint(path: Path) -> Path:
    """Return the model folder for a path: a run's newest checkpoint, or the folder itself.

    It is locked, so that a run that is still training does not remove it. Raises FileNotFoundError
    if there is none.
    """
    if (path / "config.json").is_file():
        lock_for_reading(path)
        return path
    while found := list_checkpoints(path):
        if lock_for_reading(found[-1]):
            return found[-1]
        time.sleep(0.01)  # it is being removed, so there is a newer one
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}: the folder does not exist.")
    if path.is_file():
        quoted = shlex.quote(str(path))
        raise FileNotFoundError(
            f"{path} is a file, not the folder of a checkpoint; convert it: gnano import {quoted} "
            f"--out DIR."
        )
    raise FileNotFoundError(
        f"{path} holds no checkpoint: neither config.json nor {CHECKPOINTS_DIR}/step-…."
    )


def read_latest_valid(
    run: Path,
    read: Callable[[Path], T],
    on_damaged: Callable[[Path, str], None],
    is_acceptable: Callable[[dict[str, Any]], bool] = lambda state: True,
) -> tuple[Path, T] | None:
    """Return the newest valid checkpoint whose state `is_acceptable`, and `read` of it, or None.

    Later ones are removed, so that no run resumes from them; a damaged one is renamed and left to
    the user, and `on_damaged` is called with its new path and the reason. Raises ValueError if all
    are damaged: only the user can decide to start again.
    """
    remove_partial(run)
    reasons: dict[Path, str] = {}
    rejected: list[Path] = []
    for folder in reversed(list_checkpoints(run)):
        try:
            verify_checksums(folder)
            if not is_acceptable(read_state(folder)):
                rejected.append(folder)
                continue
            content = read(folder)
        except ValueError as error:
            reasons[folder] = str(error)
            continue
        for damaged, reason in reasons.items():
            on_damaged(quarantine(damaged), reason)
        for later in rejected:
            remove_checkpoint(later)
        return folder, content
    if reasons and not rejected:
        reason = next(iter(reasons.values()))
        raise ValueError(
            f"{reason} There is no valid checkpoint before it: restore the file, or start again "
            f"in another folder (--out)."
        )
    return None


def lock_for_reading(folder: Path) -> bool:
    """Keep a checkpoint from being removed while this process runs; return False if it is gone.

    A folder without files.json belongs to no run, so nothing removes it.
    """
    folder = folder.resolve()
    if folder not in _locked_files:
        try:
            file = _lock(folder, fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        if file is not None:
            _locked_files[folder] = file
    return folder.is_dir()


def unlock(folder: Path) -> None:
    """Let a checkpoint be removed that this process has locked."""
    if (file := _locked_files.pop(folder.resolve(), None)) is not None:
        file.close()


def _lock(folder: Path, mode: int) -> IO[bytes] | None:
    """Lock a checkpoint; return the file to close, or None for a folder without files.json.

    Raises BlockingIOError where another process has a lock.
    """
    try:
        file = (folder / CHECKSUMS_FILE).open("rb")
    except OSError:
        return None
    try:
        try_lock(file.fileno(), mode)
    except BlockingIOError:
        file.close()
        raise
    return file


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
    list_file = folder / CHECKSUMS_FILE
    try:
        entries = json.loads(list_file.read_text("utf-8")).items()
        sizes = {folder / name: (int(size), str(sha256)) for name, (size, sha256) in entries}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{list_file} cannot be read ({error}).") from None
    for path, (size, _) in sizes.items():
        if not path.is_file():
            raise ValueError(f"{path} is missing from the checkpoint.")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, but {size:,} were written: "
                f"it is truncated or was replaced."
            )
    return {path: sha256 for path, (_, sha256) in sizes.items()}


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_files(files: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(HASH_THREADS) as threads:
        return list(threads.map(sha256_file, files))


def apply_retention(run: Path, keep_last: int, keep_every: int = 0, keep_best: bool = True) -> None:
    """Remove the checkpoints that need not be kept; call it after the newest has been verified."""
    found = list_checkpoints(run)
    kept = {*found[-keep_last:], *([best_checkpoint(found)] if keep_best else [])}
    for folder in found:
        if folder in kept or (keep_every and checkpoint_step(folder) % keep_every == 0):
            continue
        try:
            file = _lock(folder, fcntl.LOCK_EX)
        except BlockingIOError:  # a process reads it
            continue
        with file or nullcontext():
            remove_checkpoint(folder)


def best_checkpoint(folders: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest held-out loss, if any was evaluated."""
    losses = {}
    for folder in folders:
        with suppress(ValueError):  # damaged
            losses[folder] = read_state(folder).get("heldout")
    evaluated = {folder: loss for folder, loss in losses.items() if isinstance(loss, float)}
    return min(evaluated, key=evaluated.__getitem__, default=None)


def read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json; raise ValueError if it cannot be read."""
    path = folder / TRAINER_DIR / STATE_FILE
    try:
        state = dict(json.loads(path.read_text("utf-8")))
        return {**state, "step": int(state["step"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}).") from None


def remove_partial(run: Path) -> None:
    """Remove the partial folders that a kill left during a save or a removal."""
    for partial in (run / CHECKPOINTS_DIR).glob(".step-*"):
        shutil.rmtree(partial, ignore_errors=True)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; a kill during it leaves no folder that looks like one."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.replace(hidden)
    shutil.rmtree(hidden)


def quarantine(folder: Path) -> Path:
    """Rename a damaged checkpoint so that no reader takes it for one; return its new path."""
    name = f"damaged-{folder.name}"
    paths = (folder.with_name(name if n == 1 else f"{name}-{n}") for n in count(1))
    new_path = next(path for path in paths if not path.exists())
    folder.rename(new_path)
    return new_path
