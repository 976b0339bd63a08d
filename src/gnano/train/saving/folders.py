"""Where do a run's checkpoints lie? Found by their names, at once and without torch."""

import re
import shlex
from pathlib import Path

FOLDER = "checkpoints"
TRAINER = "trainer"  # in a checkpoint: what only training needs
STATE = "state.json"  # in there
ADAPTER = "adapter"  # in a checkpoint of a run with train.lora: what it learned alone


def checkpoints(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    found = (run / FOLDER).glob("step-*") if (run / FOLDER).is_dir() else ()
    return sorted(p for p in found if re.fullmatch(r"step-\d{8}", p.name) and p.is_dir())


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def find_checkpoint(path: Path) -> Path:
    """The model folder that a user means: a run's newest checkpoint, or the folder itself."""
    if (path / "config.json").is_file():
        return path
    found = checkpoints(path)
    if found:
        return found[-1]
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}: the folder does not exist.")
    if path.is_file():
        quoted = shlex.quote(str(path))
        raise FileNotFoundError(
            f"{path} is a file and no checkpoint's folder; make one of it: gnano import {quoted} "
            f"--out DIR."
        )
    raise FileNotFoundError(f"{path} holds no checkpoint: neither config.json nor {FOLDER}/step-….")
