"""Finds the newest valid checkpoint of a run, and removes those that need not be kept.

A damaged checkpoint is renamed and left to the user. Retention keeps the newest few, every n-th and
the best; partial folders are removed.

    keep_last = 2, keep_every = 1,000, keep_best
        500  1,000  1,500  2,000  2,500  3,000  3,500
        ×    every  ×      every  best   newest newest
"""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.run_checkpoints import (
    CHECKPOINTS_DIR,
    STATE_FILE,
    TRAINER_DIR,
    checkpoint_step,
    list_checkpoints,
    try_exclusive_lock,
)
from gnano.config.model_config import ModelConfig

if TYPE_CHECKING:
    from gnano.checkpoint.format import Snapshot


def latest_valid_checkpoint(
    run: Path,
    model_config: ModelConfig,
    on_damaged: Callable[[Path, str], None],
    is_acceptable: Callable[[dict[str, Any]], bool] = lambda state: True,
) -> "tuple[Path, Snapshot] | None":
    """Read the newest valid checkpoint whose state `is_acceptable`; return None without one.

    Later ones are removed, so that no run resumes from them; a damaged one is renamed, and
    `on_damaged` is called with its new path and the reason. Raises ValueError if all are damaged:
    only the user can decide to start again.
    """
    from gnano.checkpoint.format import read_checkpoint

    remove_partial(run)
    reasons: dict[Path, str] = {}
    rejected: list[Path] = []
    for folder in reversed(list_checkpoints(run)):
        try:
            verify_checksums(folder)
            if not is_acceptable(read_state(folder)):
                rejected.append(folder)
                continue
            snapshot = read_checkpoint(folder, model_config)
        except ValueError as error:
            reasons[folder] = str(error)
            continue
        for damaged, reason in reasons.items():
            on_damaged(quarantine(damaged), reason)
        for later in rejected:
            remove_checkpoint(later)
        return folder, snapshot
    if reasons and not rejected:
        reason = next(iter(reasons.values()))
        raise ValueError(
            f"{reason} There is no valid checkpoint before it: restore the file, or start again "
            f"in another folder (--out)."
        )
    return None


def apply_retention(run: Path, keep_last: int, keep_every: int = 0, keep_best: bool = True) -> None:
    """Remove the checkpoints that need not be kept; call it after the newest has been verified."""
    found = list_checkpoints(run)
    kept = {*found[-keep_last:], *([best_checkpoint(found)] if keep_best else [])}
    for folder in found:
        if folder not in kept and not (keep_every and checkpoint_step(folder) % keep_every == 0):
            with try_exclusive_lock(folder) as free:
                if free:
                    remove_checkpoint(folder)


def best_checkpoint(folders: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest held-out loss, if any was evaluated."""
    losses = {folder: read_state(folder).get("heldout") for folder in folders}
    evaluated = {folder: loss for folder, loss in losses.items() if isinstance(loss, float)}
    return min(evaluated, key=evaluated.__getitem__, default=None)


def read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json; return {} if it cannot be read."""
    try:
        state = json.loads((folder / TRAINER_DIR / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


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
