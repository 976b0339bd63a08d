"""The process of a tracker: reads metrics as JSON lines and passes them to TensorBoard or W&B.

    python tracker_process.py tensorboard|wandb

The first line holds the run's folder and its recipe; each further one is a step. On an error, one
sentence goes to standard output and the process ends; everything that a library prints goes to
standard error. The end of the input is the end of the run.
"""

import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHUTDOWN_GRACE = 30.0  # seconds to finish in after the run was killed


def flatten_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a step by curve name: `loss`, `heldout/web`, `tasks/piqa/acc`."""
    flat = {key: value for key, value in metrics.items() if key not in ("step", "heldout", "tasks")}
    heldout = metrics.get("heldout") or {}
    flat |= {f"heldout/{name}": bits for name, bits in heldout.get("sources", {}).items()}
    flat |= {f"heldout/{k}": value for k, value in heldout.items() if not isinstance(value, dict)}
    tasks = metrics.get("tasks")
    for task, results in tasks.items() if isinstance(tasks, dict) else ():
        if isinstance(results, dict):
            flat |= {f"tasks/{task}/{name}": value for name, value in results.items()}
    numbers = {k: v for k, v in flat.items() if isinstance(v, int | float)}
    return {key: float(value) for key, value in numbers.items() if not isinstance(value, bool)}


def run_tensorboard(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Write event files to the run's folder; repeated steps of a killed run appear once."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(run / "tensorboard"), flush_secs=5)
    first = True
    for row in rows:
        step = row["step"]
        if first:  # a reader discards what it has from this step on
            start = SessionLog(status=SessionLog.START)
            writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
            first = False
        scalars = flatten_scalars(row).items()
        values = [Summary.Value(tag=name, simple_value=number) for name, number in scalars]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def run_wandb(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Log to a W&B run that resumes when the run does: its id is stored in `wandb-id`.

    W&B ignores steps that it already has; after a kill they are repeated with the same values.
    """
    import wandb

    id_file = run / "wandb-id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4) + "\n", "utf-8")
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "auto-g-nano"),
        name=run.name,
        id=id_file.read_text("utf-8").strip(),
        resume="allow",
        dir=str(run),
        config=recipe,
        allow_val_change=True,
        settings=wandb.Settings(console="off"),
    ) as wandb_run:
        for row in rows:
            wandb_run.log(flatten_scalars(row), step=row["step"])


def _read_rows() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        if line.endswith("\n"):  # else it was interrupted by a kill
            yield json.loads(line)


def _exit_after_parent(parent_pid: int) -> None:
    """End this process `SHUTDOWN_GRACE` after the one that trains, even if a library hangs."""
    while os.getppid() == parent_pid:
        time.sleep(1)
    time.sleep(SHUTDOWN_GRACE)
    os._exit(1)


def main() -> None:
    """Read the header and the rows from standard input, and pass them to the tracker."""
    # Ctrl-C, SIGTERM and SIGHUP reach all processes of the group; this one ends with its input
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        lines = _read_rows()
        header = next(lines)
        threading.Thread(target=_exit_after_parent, args=(header["parent"],), daemon=True).start()
        track = {"tensorboard": run_tensorboard, "wandb": run_wandb}[sys.argv[1]]
        track(Path(header["run"]), header["recipe"], lines)
    except BaseException as error:
        sentence = str(error).strip().split("\n")[0]
        report.write(f"{type(error).__name__}: {sentence}\n")
        report.flush()
        os._exit(1)  # not a normal exit, in which a library may hang too


if __name__ == "__main__":
    main()
