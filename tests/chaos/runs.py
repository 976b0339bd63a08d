"""Runs in processes of their own, which are started quickly because a clean one is copied.

What `python -m gnano pretrain` does, without the seconds that it takes to load PyTorch each time.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault
from tests.processes import free_port

from gnano.config.recipe import Recipe
from gnano.utils.jsonl_log import read_metrics

PATIENCE = 120.0  # seconds for a process to end
SAME = ("loss", "grad_norm", "lr", "tokens", "skipped", "heldout", "final")  # of a row
LOGS = tempfile.TemporaryDirectory()
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["gnano.train.trainer", "gnano.reporting.html_report", "tests.chaos.faults"]
)


def run(
    recipe: Recipe, folder: Path, fault: Fault | None = None, ranks: int = 1, on: int = 0
) -> list[int]:
    """Train until it ends; the exit codes of all ranks. The fault is planted `on` one of them."""
    processes = begin(recipe, folder, fault, ranks, on)
    for process in processes:
        process.join(PATIENCE)
    alive = [process for process in processes if process.exitcode is None]
    for process in alive:
        process.kill()
    assert not alive, f"{fault}: {len(alive)} of {ranks} ranks did not end"
    return [process.exitcode or 0 for process in processes]


def begin(
    recipe: Recipe, folder: Path, fault: Fault | None = None, ranks: int = 1, on: int = 0
) -> Sequence[BaseProcess]:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(ranks):
        who = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        environment = {**meeting, **who} if ranks > 1 else {}
        planted = fault if rank == on else None
        arguments = (recipe, folder, planted, environment, _log(folder, rank))
        # daemon: ended with the tests, where one of them failed
        process = context.Process(target=_train, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    return processes


def output(folder: Path, rank: int = 0) -> str:
    log = _log(folder, rank)
    return log.read_text() if log.exists() else ""


def history(folder: Path) -> list[dict[str, Any]]:
    """What the run's log says in the end of each step, without what depends on the clock."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: row[key] for key in ("step", *SAME) if key in row} for row in rows]


def _log(folder: Path, rank: int) -> Path:
    """On another disk than the run, which may be full."""
    return Path(LOGS.name, f"{hashlib.sha1(str(folder).encode()).hexdigest()}.{rank}.out")


def _train(
    recipe: Recipe, folder: Path, fault: Fault | None, environment: dict[str, str], log: Path
) -> None:
    from gnano.checkpoint import async_writer
    from gnano.train.trainer import train

    async_writer.RETRY_INTERVAL, async_writer.STOP_RETRY_SECONDS = (
        0.2,
        2.0,
    )  # seconds, so that a test need not wait for long
    os.environ.update(environment)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("a") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    if fault is not None:
        fault.plant()

    def say(text: str, waiting: bool = False) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        result = train(recipe, folder, notify=say)
    except (ValueError, OSError) as error:  # as the command does
        print(f"gnano: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(128 + result.stopped_by if result.stopped_by else 0)
