"""What has `gnano eval` found of the model? A section of its card, where the run has kept it."""

import json
from pathlib import Path

from gnano.evals import Evaluation, Score
from gnano.export.markdown import table

HOW = (
    "Measured with `gnano eval`: items worded as in lm-evaluation-harness, acc_norm by characters, "
    "± the standard error."
)


def scores(folder: Path) -> str:
    """Of this checkpoint; empty where nothing was measured or it cannot be read."""
    kept = folder.resolve().parent.parent / "evals" / f"{folder.resolve().name}.json"
    try:
        found = Evaluation.from_dict(json.loads(kept.read_text("utf-8")))
        rows = [_row(one) for one in found.scores]
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return ""
    if not rows:
        return ""
    heads = ("task", "items", "shots", "acc", "acc_norm", "a guess")
    return f"## Evaluation\n\n{table(heads, rows)}\n\n{HOW}"


def _row(one: Score) -> tuple[str, ...]:
    items, shots = f"{one.items:,}", str(one.shots)
    guess = "" if one.chance is None else f"{one.chance:.3f}"
    return one.title, items, shots, str(one.acc), str(one.acc_norm or ""), guess
