"""Where do a run's checkpoints lie? Found by their names, at once and without torch.

A process that reads one holds it by a shared lock on its list of files until it ends, and the
run's retention leaves what is held to a later time.
"""

import fcntl
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnano.train.alone import lock

FOLDER = "checkpoints"
TRAINER = "trainer"  # in a checkpoint: what only training needs
STATE = "state.json"  # in there
FILES = "files.json"  # in a checkpoint: all its files, with their sizes and hashes
ADAPTER = "adapter"  # in a checkpoint of a run with train.lora: what it learned alone


def checkpoints(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    found = (run / FOLDER).glob("step-*") if (run / FOLDER).is_dir() else ()
    return sorted(p for p in found if re.fullmatch(r"step-\d{8}", p.name) and p.is_dir())


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def find_checkpoint(path: Path) -> Path:
    """The model folder that a user means: a run's newest checkpoint, or the folder itself.

    It is held: a run that goes on does not remove it while this process reads.
    """
    if (path / "config.json").is_file():
        hold(path)
        return path
    while found := checkpoints(path):
        if hold(found[-1]):
            return found[-1]
        time.sleep(0.01)  # it is just being removed, so there is a newer one
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}: the folder does not exist.")
    if path.is_file():
        quoted = shlex.quote(str(path))
        raise FileNotFoundError(
            f"{path} is a file and no checkpoint's folder; make one of it: gnano import {quoted} "
            f"--out DIR."
        )
    raise FileNotFoundError(f"{path} holds no checkpoint: neither config.json nor {FOLDER}/step-….")


_held: dict[Path, int] = {}  # files on which this process has a lock


def hold(folder: Path) -> bool:
    """Hold a checkpoint; False where it is gone or going.

    A folder without a list of files is no run's, and nobody removes it.
    """
    folder = folder.resolve()
    if folder in _held and folder.is_dir():
        return True
    try:
        file = os.open(folder / FILES, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return folder.is_dir()
    try:
        lock(file, fcntl.LOCK_SH)
    except BlockingIOError:
        os.close(file)
        return False
    _held[folder] = file
    return folder.is_dir()


@contextmanager
def unless_held(folder: Path) -> Iterator[bool]:
    """Is nobody reading the checkpoint? Then nobody begins to, as long as this is entered."""
    try:
        file = os.open(folder / FILES, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        lock(file, fcntl.LOCK_EX)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)
