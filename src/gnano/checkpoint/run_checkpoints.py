"""Finds the checkpoints of a run, and locks the one that is read; loads without torch.

A process that reads a checkpoint holds a shared lock on its files.json until it ends; the run's
retention skips a locked checkpoint and removes it at a later save.
"""

import fcntl
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnano.checkpoint.checksums import CHECKSUMS_FILE
from gnano.utils.files import try_lock

CHECKPOINTS_DIR = "checkpoints"
TRAINER_DIR = "trainer"  # in a checkpoint: what only training needs
STATE_FILE = "state.json"  # in TRAINER_DIR
ADAPTER_DIR = "adapter"  # in a checkpoint of a run with train.lora: the adapter
_locked_files: dict[Path, int] = {}  # file descriptors of this process's locks, by checkpoint


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders of the run's complete checkpoints, oldest first."""
    found = (run / CHECKPOINTS_DIR).glob("step-*") if (run / CHECKPOINTS_DIR).is_dir() else ()
    return sorted(p for p in found if re.fullmatch(r"step-\d{8}", p.name) and p.is_dir())


def checkpoint_step(folder: Path) -> int:
    """Return the step of a checkpoint, from its name."""
    return int(folder.name.removeprefix("step-"))


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


def lock_for_reading(folder: Path) -> bool:
    """Keep a checkpoint from being removed while this process runs; return False if it is gone.

    A folder without files.json belongs to no run, so nothing removes it.
    """
    folder = folder.resolve()
    if folder not in _locked_files:
        try:
            file = os.open(folder / CHECKSUMS_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return folder.is_dir()
        try:
            try_lock(file, fcntl.LOCK_SH)
        except BlockingIOError:
            os.close(file)
            return False
        _locked_files[folder] = file
    return folder.is_dir()


@contextmanager
def try_exclusive_lock(folder: Path) -> Iterator[bool]:
    """Yield whether no process reads the checkpoint; none can start to before this exits."""
    try:
        file = os.open(folder / CHECKSUMS_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        try_lock(file, fcntl.LOCK_EX)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)
