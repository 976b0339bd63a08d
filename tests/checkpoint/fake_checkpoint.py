"""Checkpoint folders with only the files that retention reads."""

import json
from collections.abc import Mapping
from pathlib import Path


def make_checkpoints(run: Path, losses: Mapping[int, float | None]) -> None:
    """Create a checkpoint of each step, with its held-out loss."""
    for step, loss in losses.items():
        trainer = run / "checkpoints" / f"step-{step:08}" / "trainer"
        trainer.mkdir(parents=True, exist_ok=True)
        state = {"step": step, "heldout": loss}
        (trainer / "state.json").write_text(json.dumps(state))
