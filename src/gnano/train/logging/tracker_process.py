"""What a tracker's process does: figures come in as JSON lines, and go where they belong.

    python tracker_process.py tensorboard|wandb

The first line names the run's folder and its recipe; each further one is a step. If something
fails, its one sentence goes to standard output and the process ends with it; all that a library
prints goes to standard error. The end of the lines is the end of the run.
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

SHUTDOWN_GRACE = 30.0  # seconds to finish in when the run was killed


def flatten_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of a step under the names they are drawn by: `heldout/web`, `tasks/piqa/acc`."""
    flat = {key: value for key, value in metrics.items() if key not in ("step", "heldout", "tasks")}
    heldout = metrics.get("heldout") or {}
    flat |= {f"heldout/{name}": bits for name, bits in heldout.get("sources", {}).items()}
    totals = {name: figure for name, figure in heldout.items() if not isinstance(figure, dict)}
    flat |= {f"heldout/{name}": figure for name, figure in totals.items()}
    tasks = metrics.get("tasks")
    for task, found in tasks.items() if isinstance(tasks, dict) else ():
        named = found.items() if isinstance(found, dict) else ()
        flat |= {f"tasks/{task}/{name}": figure for name, figure in named}
    numbers = {k: v for k, v in flat.items() if isinstance(v, int | float)}
    return {key: float(value) for key, value in numbers.items() if not isinstance(value, bool)}


def run_tensorboard(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Event files in the run's folder; what a killed part wrote and this one redoes is hidden."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(run / "tensorboard"), flush_secs=5)
    first = True
    for figures in rows:
        step = figures["step"]
        if first:  # a reader forgets what it has from here on
            start = SessionLog(status=SessionLog.START)
            writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
            first = False
        named = flatten_scalars(figures).items()
        values = [Summary.Value(tag=name, simple_value=number) for name, number in named]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def run_wandb(run: Path, recipe: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """A W&B run that goes on when the run does: its id lies in `wandb-id`.

    W&B skips the steps that it has; after a kill they come with the same figures.
    """
    import wandb

    kept = run / "wandb-id"
    if not kept.exists():
        kept.write_text(secrets.token_hex(4) + "\n", "utf-8")
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "auto-g-nano"),
        name=run.name,
        id=kept.read_text("utf-8").strip(),
        resume="allow",
        dir=str(run),
        config=recipe,
        allow_val_change=True,
        settings=wandb.Settings(console="off"),
    ) as there:
        for figures in rows:
            there.log(flatten_scalars(figures), step=figures["step"])


def _read_rows() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        if line.endswith("\n"):  # else a kill came in the middle of it
            yield json.loads(line)


def _exit_after_parent(parent_pid: int) -> None:
    """End this process some time after the one that trains, even if a library hangs."""
    while os.getppid() == parent_pid:
        time.sleep(1)
    time.sleep(SHUTDOWN_GRACE)
    os._exit(1)


def main() -> None:
    # Ctrl-C, SIGTERM and SIGHUP reach the whole group; the end of the lines is what ends this one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        lines = _read_rows()
        opening = next(lines)
        threading.Thread(target=_exit_after_parent, args=(opening["parent"],), daemon=True).start()
        track = {"tensorboard": run_tensorboard, "wandb": run_wandb}[sys.argv[1]]
        track(Path(opening["run"]), opening["recipe"], lines)
    except BaseException as error:
        sentence = str(error).strip().split("\n")[0]
        report.write(f"{type(error).__name__}: {sentence}\n")
        report.flush()
        os._exit(1)  # not the way out through a library that may hang there too


if __name__ == "__main__":
    main()
