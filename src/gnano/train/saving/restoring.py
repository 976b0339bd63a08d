"""Finds the newest valid checkpoint of a run, and sets damaged ones aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnano.model.config import ModelConfig
from gnano.train.saving.checkpoint import Snapshot, read_checkpoint
from gnano.train.saving.folders import list_checkpoints
from gnano.train.saving.hashes import verify_checksums
from gnano.train.saving.retention import quarantine, read_state, remove_checkpoint, remove_partial


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
