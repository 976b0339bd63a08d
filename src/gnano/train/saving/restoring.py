"""Finds the newest valid checkpoint of a run, and sets damaged ones aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnano.model.config import ModelConfig
from gnano.train.saving.checkpoint import Snapshot, read_checkpoint
from gnano.train.saving.folders import checkpoints
from gnano.train.saving.hashes import verify
from gnano.train.saving.retention import clear_torn, remove, set_aside, state_of


def newest_good(
    run: Path,
    shape: ModelConfig,
    damaged: Callable[[Path, str], None],
    good: Callable[[dict[str, Any]], bool] = lambda state: True,
) -> tuple[Path, Snapshot] | None:
    """Read the newest checkpoint that is undamaged and whose state is `good`; None without one.

    Later ones are removed, so that no run resumes from them; a damaged one is moved aside, and
    `damaged` is called with its new place and the reason. Raises ValueError where all are damaged:
    only the user can decide to start again.
    """
    clear_torn(run)
    reasons: dict[Path, str] = {}
    passed: list[Path] = []
    for folder in reversed(checkpoints(run)):
        try:
            verify(folder)
            if not good(state_of(folder)):
                passed.append(folder)
                continue
            snapshot = read_checkpoint(folder, shape)
        except ValueError as error:
            reasons[folder] = str(error)
            continue
        for bad, reason in reasons.items():
            damaged(set_aside(bad), reason)
        for later in passed:
            remove(later)
        return folder, snapshot
    if reasons and not passed:
        folder, reason = next(iter(reasons.items()))
        raise ValueError(
            f"{reason} There is no whole checkpoint before it: put the file back, or begin "
            f"anew in another folder (--out)."
        )
    return None
