"""Python code in several processes, which are forked from one that has loaded PyTorch.

ranks = start("with DistContext.init('cpu', timing=FAST) as world: print(world.rank)", size=2)
[rank.finish() for rank in ranks]    ─▶ ["0\\n", "1\\n"]
"""

import os
import signal
import tempfile
import time
from pathlib import Path

from tests.processes import free_port
from tests.ranks import forkserver

TIMEOUT = 70.0  # seconds for a process to end
PREAMBLE = """
import math, os, sys, threading, time
import torch
from gnano.train.distributed.watchdog import WatchdogTiming
from gnano.train.distributed.context import DistContext
rank = int(os.environ.get("RANK", 0))
FAST = WatchdogTiming(
    check_interval=0.2, pause_threshold=1.0, exit_grace=2.0, first_collective_timeout=0.5
)
"""


class Script:
    """A process that runs some code."""

    def __init__(self, body: str, environment: dict[str, str]) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.output = Path(file.name)
        arguments = (PREAMBLE + body, environment, self.output, Path.cwd())
        # daemon: ended with the tests, even after a failure
        self.process = forkserver.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while text not in self.output.read_text():
            assert time.monotonic() < deadline and self.process.is_alive(), self.output.read_text()
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def finish(self) -> str:
        """Wait for the end of the process, kill it after a timeout, and return its output."""
        self.process.join(TIMEOUT)
        self.process.kill()
        self.process.join()
        output = self.output.read_text()
        self.output.unlink(missing_ok=True)
        return output


def start(body: str, size: int = 1) -> list[Script]:
    """Start the code on `size` ranks."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    ranks = [dict(zip(names, map(str, (rank, rank, size)), strict=True)) for rank in range(size)]
    return [Script(body, {**rendezvous, **rank} if size > 1 else {}) for rank in ranks]


def _run(code: str, environment: dict[str, str], output: Path, folder: Path) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    with output.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    exec(compile(code, "script", "exec"), {})
