"""The command `gnano runs`: lists the runs in a folder and their status."""

from pathlib import Path

from gnano.cli.args import PathArg
from gnano.utils.terminal import echo


def runs(folder: PathArg = Path("runs"), json: bool = False) -> None:
    """List the runs in a folder, two levels deep: state, step, losses, checkpoint, age.

    command examples:
      gnano runs                          those in ./runs
      gnano runs /data/trials
      gnano runs --json | jq 'select(.state == "failed")'

    running: a process works on it. finished: all its steps are done. stopped: by a signal, with
    a checkpoint. failed: with a reason, or killed? if its process disappeared without logging an
    end. The checkpoint is the newest whose files have the right sizes; gnano info RUN --verify
    checks every byte.

    Args:
        folder: The folder that holds the runs.
        json: Print one JSON object per line; nothing if there is no run.
    """
    from gnano.reporting.run_status import format_runs_json, format_runs_table, list_runs

    found = list_runs(folder)
    if text := (format_runs_json if json else format_runs_table)(folder, found):
        echo(text)
