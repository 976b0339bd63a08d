"""Finds the newest valid checkpoint of a run, and sets damaged ones aside.

Removes checkpoints: the newest few, every n-th and the best are kept, partial ones never.

keep = 2, every = 1,000, best      500  1,000  1,500  2,000  2,500  3,000  3,500
                                   ×    every  ×      every  best   newest newest
"""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import (
    CHECKPOINTS_DIR,
    STATE_FILE,
    TRAINER_DIR,
    Snapshot,
    checkpoint_step,
    list_checkpoints,
    read_checkpoint,
    try_exclusive_lock,
)
from gnano.config.model_config import ModelConfig


def latest_valid_checkpoint(
    run: Path,
    model_config: ModelConfig,
    on_damaged: Callable[[Path, str], None],
    is_acceptable: Callable[[dict[str, Any]], bool] = lambda state: True,
) -> tuple[Path, Snapshot] | None:
    """Read the newest checkpoint that is undamaged and whose state is `good`; None without one.

    Later ones are removed, so that no run resumes from them; a damaged one is moved aside, and
    `damaged` is called with its new place and the reason. Raises ValueError where all are damaged:
    only the user can decide to start again.
    """
    remove_partial(run)
    reasons: dict[Path, str] = {}
    passed: list[Path] = []
    for folder in reversed(list_checkpoints(run)):
        try:
            verify_checksums(folder)
            if not is_acceptable(read_state(folder)):
                passed.append(folder)
                continue
            snapshot = read_checkpoint(folder, model_config)
        except ValueError as error:
            reasons[folder] = str(error)
            continue
        for bad, reason in reasons.items():
            on_damaged(quarantine(bad), reason)
        for later in passed:
            remove_checkpoint(later)
        return folder, snapshot
    if reasons and not passed:
        folder, reason = next(iter(reasons.items()))
        raise ValueError(
            f"{reason} There is no whole checkpoint before it: put the file back, or begin "
            f"anew in another folder (--out)."
        )
    return None


def apply_retention(run: Path, keep_last: int, keep_every: int = 0, keep_best: bool = True) -> None:
    """Remove all other checkpoints; call it when the newest has been verified."""
    found = list_checkpoints(run)
    kept = {*found[-keep_last:], *([best_checkpoint(found)] if keep_best else [])}
    for folder in found:
        if folder not in kept and not (keep_every and checkpoint_step(folder) % keep_every == 0):
            with try_exclusive_lock(folder) as free:
                if free:
                    remove_checkpoint(folder)


def best_checkpoint(folders: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest held-out loss, of those where it was measured."""
    measured = {folder: read_state(folder).get("heldout") for folder in folders}
    losses = {folder: loss for folder, loss in measured.items() if isinstance(loss, float)}
    return min(losses, key=lambda folder: losses[folder]) if losses else None


def read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json; {} where that cannot be read."""
    try:
        state = json.loads((folder / TRAINER_DIR / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def remove_partial(run: Path) -> None:
    """Remove the partial folders that a kill left while checkpoints were written or removed."""
    for partial in (run / CHECKPOINTS_DIR).glob(".step-*"):
        shutil.rmtree(partial, ignore_errors=True)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; a kill in the middle leaves no folder that looks like one."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def quarantine(folder: Path) -> Path:
    """Rename a damaged checkpoint so that no reader takes it for one; returns its new path."""
    name = f"damaged-{folder.name}"
    places = (folder.with_name(name if n == 1 else f"{name}-{n}") for n in count(1))
    aside = next(place for place in places if not place.exists())
    folder.rename(aside)
    return aside
