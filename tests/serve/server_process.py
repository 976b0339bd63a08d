"""A `gnano serve` process on a free port."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import openai

# programs that change the server before it starts
SLOW_STEPS = """
import time
from gnano.infer.continuous_batching import ContinuousBatch
step = ContinuousBatch.step
def slow_step(self, *rest, **options):
    time.sleep(0.05)
    return step(self, *rest, **options)
ContinuousBatch.step = slow_step
"""
RUN = "import gnano.cli; gnano.cli.main()"


class ServerProcess:
    """A server, from its start to its end; `log` has the lines of stderr."""

    def __init__(self, *arguments: object, program: str = "", **environment: str) -> None:
        command = [sys.executable, "-c", f"{program}\n{RUN}", "serve"]
        command += ["--port", "0", "--threads", "1", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.log: list[str] = []
        self.folder = Path()  # of its runs, where a test changes them
        assert self.process.stdout and self.process.stderr
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            self.reader.join(5)
            raise RuntimeError("".join(self.log))
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send a JSON object."""
        return self.http.post(path, json=body)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def serve(runs: Path, *arguments: object, **options: str) -> ServerProcess:
    """Serve the tuned run and its base."""
    return ServerProcess(runs / "small-sft", runs / "small", *arguments, **options)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Return when the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
