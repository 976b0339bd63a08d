"""Which checkpoints stay? The newest few, every n-th, and the best; torn ones never count.

keep = 2, every = 1,000, best      500  1,000  1,500  2,000  2,500  3,000  3,500
                                   ×    every  ×      every  best   newest newest
"""

import json
import shutil
from pathlib import Path
from typing import Any

from gnano.train.saving.folders import FOLDER, STATE, TRAINER, checkpoints, step_of, unless_held

DAMAGED = "damaged-"  # before the name of a checkpoint that is one no more


def tidy(run: Path, keep: int, every: int = 0, best: bool = True) -> None:
    """Remove the checkpoints that are not to stay; called when the newest is known to be good."""
    found = checkpoints(run)
    stay = set(found[-keep:])
    if every:
        stay |= {folder for folder in found if step_of(folder) % every == 0}
    if best and (winner := best_of(found)):
        stay.add(winner)
    for folder in found:
        if folder not in stay:
            with unless_held(folder) as free:
                if free:
                    remove(folder)


def best_of(found: list[Path]) -> Path | None:
    """The checkpoint with the lowest held-out loss, of those where it was measured."""
    measured = {folder: state_of(folder).get("heldout") for folder in found}
    losses = {folder: loss for folder, loss in measured.items() if isinstance(loss, float)}
    return min(losses, key=lambda folder: losses[folder]) if losses else None


def state_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its run; nothing where that cannot be read."""
    try:
        state = json.loads((folder / TRAINER / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def clear_torn(run: Path) -> None:
    """Remove what a kill left of checkpoints that were being written or removed."""
    for torn in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(torn, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint; killed in the middle of it, what is left is none either."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def set_aside(folder: Path) -> Path:
    """Give a damaged checkpoint a name that no reader takes for one; returns its new place."""
    number, aside = 1, folder.with_name(f"{DAMAGED}{folder.name}")
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{DAMAGED}{folder.name}-{number}")
    folder.rename(aside)
    return aside
