"""Checkpoint folders with nothing in them but what retention looks at."""

import json
from collections.abc import Mapping
from pathlib import Path


def made(run: Path, losses: Mapping[int, float | None]) -> None:
    """One after each of these steps, with its held-out loss."""
    for step, loss in losses.items():
        trainer = run / "checkpoints" / f"step-{step:08}" / "trainer"
        trainer.mkdir(parents=True, exist_ok=True)
        state = {"step": step, "heldout": loss}
        (trainer / "state.json").write_text(json.dumps(state))
