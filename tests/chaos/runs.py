"""Training runs in separate processes, on one or several ranks, optionally with a fault.

They do what `python -m gnano pretrain` does, without the seconds that loading PyTorch takes.
"""

import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault
from tests.processes import free_port
from tests.ranks import forkserver

from gnano.config.recipe import Recipe
from gnano.utils.jsonl_log import read_metrics

TIMEOUT = 120.0  # seconds for a process to end
# of a row, the metrics that do not depend on the clock
COMPARED_KEYS = ("step", "loss", "grad_norm", "lr", "tokens", "skipped", "heldout", "final")
OUTPUTS = tempfile.TemporaryDirectory()


def run(
    recipe: Recipe, folder: Path, fault: Fault | None = None, ranks: int = 1, on: int = 0
) -> list[int]:
    """Train to the end, with a fault on rank `on`; return the exit codes of all ranks."""
    processes = start(recipe, folder, fault, ranks, on)
    for process in processes:
        process.join(TIMEOUT)
    alive = [process for process in processes if process.exitcode is None]
    for process in alive:
        process.kill()
    assert not alive, f"{fault}: {len(alive)} of {ranks} ranks did not end"
    return [process.exitcode or 0 for process in processes]


def start(
    recipe: Recipe, folder: Path, fault: Fault | None = None, ranks: int = 1, on: int = 0
) -> Sequence[BaseProcess]:
    """Start the ranks of a run."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        environment = {**rendezvous, **own} if ranks > 1 else {}
        planted = fault if rank == on else None
        arguments = (recipe, folder, planted, environment, _output_file(folder, rank))
        # daemon: ended with the tests, even after a failure
        process = forkserver.Process(target=_train, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    return processes


def output(folder: Path, rank: int = 0) -> str:
    """Return what a rank has printed, in all runs of this folder."""
    file = _output_file(folder, rank)
    return file.read_text() if file.exists() else ""


def wait_for_output(text: str, folder: Path) -> None:
    """Return as soon as rank 0 has printed the text."""
    deadline = time.monotonic() + 60
    while text not in output(folder):
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.01)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the final metrics of each step, without those that depend on the clock."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: row[key] for key in COMPARED_KEYS if key in row} for row in rows]


def _output_file(folder: Path, rank: int) -> Path:
    """Return a file on another disk than the run, whose disk may be full."""
    return Path(OUTPUTS.name, f"{hashlib.sha1(str(folder).encode()).hexdigest()}.{rank}.out")


def _train(
    recipe: Recipe, folder: Path, fault: Fault | None, environment: dict[str, str], file: Path
) -> None:
    from gnano.checkpoint import async_writer
    from gnano.train.trainer import train

    async_writer.RETRY_INTERVAL, async_writer.STOP_RETRY_SECONDS = 0.2, 2.0  # shorter, for tests
    os.environ.update(environment)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with file.open("a") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    if fault is not None:
        fault.plant()

    def notify(text: str, waiting: bool = False) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        result = train(recipe, folder, notify=notify)
    except (ValueError, OSError) as error:  # as the command does
        print(f"gnano: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(128 + result.stopped_by if result.stopped_by else 0)
