"""What has `gnano eval` found of the model? A section of its card, where the run has kept it."""

from pathlib import Path

from gnano.evals import Score, saved_results
from gnano.export.markdown import table
from gnano.infer import Loading

HOW = (
    "Measured with `gnano eval`: items worded as in lm-evaluation-harness, acc_norm by characters, "
    "± the standard error."
)


def scores(folder: Path) -> str:
    """Of this checkpoint, the newest of each task; empty where nothing of it was kept."""
    there = list(saved_results(folder, Loading()))
    there.sort(key=lambda pair: pair[0].stat().st_mtime)
    newest = {one.task: one for _, found in there for one in found.scores}
    if not newest:
        return ""
    heads = ("task", "items", "shots", "acc", "acc_norm", "a guess")
    return f"## Evaluation\n\n{table(heads, map(_row, newest.values()))}\n\n{HOW}"


def _row(one: Score) -> tuple[str, ...]:
    items, shots = f"{one.items:,}", str(one.shots)
    guess = "" if one.chance is None else f"{one.chance:.3f}"
    return one.title, items, shots, str(one.acc), str(one.acc_norm or ""), guess
