"""What did a run write down? One row a step, read from the log that survives a kill.

`metrics.jsonl` only ever grows: one JSON object a line. A run that is killed and resumed goes
back to its last checkpoint, so some steps are written twice, and the line being written when
the kill came may be torn:

    {"step": 7, "loss": 5.20, …}
    {"step": 8, "loss": 5.1                  torn: skipped
    {"step": 7, "loss": 5.21, …}             the later line counts
"""

import json
from pathlib import Path
from typing import Any

START = '{"step"'  # how the trainer begins every line


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, one a step, in the order of the steps.

    FileNotFoundError if there is no such file, ValueError if it holds no whole line yet.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give the metrics.jsonl inside a run's folder, "
            f"or start the run first."
        )
    rows: dict[int, dict[str, Any]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            row = _row(line)
            if row is None:
                continue
            step = row["step"]
            # a line without a loss adds to its step (a last measurement); it does not redo it
            rows[step] = row if "loss" in row else {**rows.get(step, {}), **row}
    if not rows:
        raise ValueError(
            f"{path} holds no finished step yet: wait for the run's first step, then try again."
        )
    return [rows[step] for step in sorted(rows)]


def _row(line: str) -> dict[str, Any] | None:
    """The row of a line, or None if the line is torn."""
    # A torn line has no newline, so the resumed run may have written right behind it:
    # whatever begins last in the line is the part that can be whole.
    start = line.rfind(START)
    try:
        row = json.loads(line if start < 0 else line[start:])
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
