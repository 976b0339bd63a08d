"""`gnano runs`: how the runs of a folder stand."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.utils.terminal import echo


def runs(folder: Annotated[Path, tyro.conf.Positional] = Path("runs"), json: bool = False) -> None:
    """List the runs below a folder, two levels deep: state, step, losses, checkpoint, age.

    examples:
      gnano runs                          those in ./runs
      gnano runs /data/trials
      gnano runs --json | jq 'select(.state == "failed")'

    running: a process works on it. finished: all its steps are done. stopped: by a signal, with
    a checkpoint. failed: with a reason, or killed? where its process is gone without a word.
    The checkpoint is the newest whose files have their sizes; gnano info RUN --verify checks
    every byte.

    Args:
        folder: The folder that holds the runs.
        json: One JSON object a line, for a program; nothing where there is no run.
    """
    from gnano.reporting.run_list import format_runs_json, format_runs_table, list_runs

    found = list_runs(folder)
    if text := (format_runs_json if json else format_runs_table)(folder, found):
        echo(text)
