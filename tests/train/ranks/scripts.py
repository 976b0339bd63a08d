"""Python code in processes of their own, which are forked from one that has loaded PyTorch.

ranks = start("with World.join('cpu', timing=FAST) as world: print(world.rank)", size=2)
[rank.end() for rank in ranks]    ─▶ ["0\\n", "1\\n"]
"""

import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

from tests.processes import free_port

TIMEOUT = 70.0  # seconds for a process to end
START = """
import math, os, sys, threading, time
import torch
from gnano.train.distributed.watchdog import Timing
from gnano.train.distributed.context import World
me = int(os.environ.get("RANK", 0))
FAST = Timing(every=0.2, late=1.0, grace=2.0, first_exchange=0.5)
"""
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["gnano.train.distributed.context"])


class Script:
    def __init__(self, body: str, environment: dict[str, str]) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.output = Path(file.name)
        arguments = (START + body, environment, self.output, Path.cwd())
        # daemon: ended with the tests, where one of them failed
        self.process = context.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while text not in self.output.read_text():
            assert time.monotonic() < deadline and self.process.is_alive(), self.output.read_text()
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> str:
        """What it printed; it has ended, or is ended here."""
        self.process.join(TIMEOUT)
        self.process.kill()
        self.process.join()
        printed = self.output.read_text()
        self.output.unlink(missing_ok=True)
        return printed


def start(body: str, size: int = 1) -> list[Script]:
    """Run the code in so many ranks."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    ranks = [dict(zip(names, map(str, (rank, rank, size)), strict=True)) for rank in range(size)]
    return [Script(body, {**meeting, **rank} if size > 1 else {}) for rank in ranks]


def _run(code: str, environment: dict[str, str], output: Path, folder: Path) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    with output.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    exec(compile(code, "script", "exec"), {})
