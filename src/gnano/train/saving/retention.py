"""Removes checkpoints: the newest few, every n-th and the best are kept, partial ones never.

keep = 2, every = 1,000, best      500  1,000  1,500  2,000  2,500  3,000  3,500
                                   ×    every  ×      every  best   newest newest
"""

import json
import shutil
from itertools import count
from pathlib import Path
from typing import Any

from gnano.train.saving.folders import FOLDER, STATE, TRAINER, checkpoints, step_of, unless_held


def tidy(run: Path, keep: int, every: int = 0, best: bool = True) -> None:
    """Remove all other checkpoints; call it when the newest has been verified."""
    found = checkpoints(run)
    kept = {*found[-keep:], *([best_of(found)] if best else [])}
    for folder in found:
        if folder not in kept and not (every and step_of(folder) % every == 0):
            with unless_held(folder) as free:
                if free:
                    remove(folder)


def best_of(found: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest held-out loss, of those where it was measured."""
    measured = {folder: state_of(folder).get("heldout") for folder in found}
    losses = {folder: loss for folder, loss in measured.items() if isinstance(loss, float)}
    return min(losses, key=lambda folder: losses[folder]) if losses else None


def state_of(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json; {} where that cannot be read."""
    try:
        state = json.loads((folder / TRAINER / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def clear_torn(run: Path) -> None:
    """Remove the partial folders that a kill left while checkpoints were written or removed."""
    for partial in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(partial, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint; a kill in the middle leaves no folder that looks like one."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that no reader takes it for one; returns its new path."""
    name = f"damaged-{folder.name}"
    places = (folder.with_name(name if n == 1 else f"{name}-{n}") for n in count(1))
    aside = next(place for place in places if not place.exists())
    folder.rename(aside)
    return aside
