"""Runs in processes of their own, which tests may kill."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import tomli_w

from gnano.config.data_config import DataConfig
from gnano.config.recipe import Recipe


def start(recipe: Recipe, run: Path) -> subprocess.Popen[bytes]:
    """`gnano pretrain` of the recipe in a process of its own."""
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


STOPPED = """
import signal, sys
from pathlib import Path
from gnano.config.recipe import load_recipe
from gnano.train.trainer import train

def watch(row):
    if row["step"] == int(sys.argv[3]):
        signal.raise_signal(signal.SIGTERM)

result = train(load_recipe(sys.argv[1]), Path(sys.argv[2]), watch)
sys.exit(128 + result.stopped_by)
"""


def start_ranks(
    recipe: Recipe, run: Path, size: int, stop_after: int | None = None
) -> list[subprocess.Popen[bytes]]:
    """`gnano pretrain` in so many processes, told who they are as a launcher would tell them.

    With `stop_after` the first rank, and no other, has a SIGTERM after that step.
    """
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(run)]
    if stop_after is not None:
        command = [sys.executable, "-c", STOPPED, str(file), str(run), str(stop_after)]
    return as_ranks(command, size)


def as_ranks(command: list[str], size: int) -> list[subprocess.Popen[bytes]]:
    """The command in so many processes, each told its rank."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    who = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        for rank in range(size)
    ]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **meeting, **me},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for me in who
    ]


def ends(ranks: list[subprocess.Popen[bytes]], timeout: float = 300) -> list[str]:
    """What each rank printed; all of them have ended, or are ended here and the test fails."""
    deadline = time.monotonic() + timeout
    try:
        return [
            rank.communicate(timeout=max(deadline - time.monotonic(), 0.1))[0].decode()
            for rank in ranks
        ]
    finally:
        for rank in ranks:
            rank.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as the log of the run has reached a step."""
    deadline = time.monotonic() + 120
    log = run / "metrics.jsonl"
    while not (log.exists() and f'"step": {step},' in log.read_text()):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, f"step {step} did not come"
        time.sleep(0.005)


def kill_at(recipe: Recipe, run: Path, step: int) -> None:
    """Start the run, and kill -9 it as soon as its log has reached a step."""
    process = start(recipe, run)
    wait_for_step(run, step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "the run was over before it could be killed"


def fingerprint(checkpoint: Path) -> dict[str, str]:
    """Hashes of all its tensors, bit for bit: weights and what only training needs."""
    from safetensors.torch import load_file

    files = sorted(checkpoint.rglob("*.safetensors"))
    assert len(files) > 1
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in files
        for name, tensor in load_file(file).items()
    }


def losses(run: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm by step, the later line of a step counting."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}


PREPARE = """
import sys
from gnano.cli import main
from gnano.data import source_files
source_files.MIN_TASK_BYTES = int(sys.argv[1])
main(["prepare", *sys.argv[2:]])
"""


def write_recipe(config: DataConfig, file: Path) -> Path:
    """A recipe of this data, as TOML."""
    file.write_text(tomli_w.dumps({"data": asdict(config)}))
    return file


def start_prepare(config: DataConfig, file: Path, small: int = 1) -> subprocess.Popen[bytes]:
    """`gnano prepare` in a process of its own, with tasks of so many bytes."""
    command = [sys.executable, "-c", PREPARE, str(small), str(write_recipe(config, file))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def children(pid: int) -> list[int]:
    """The processes that a process has started; none if it is gone."""
    found: list[int] = []
    for file in Path("/proc", str(pid), "task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def wait_for_end(pids: list[int]) -> None:
    """Return when none of these processes is at work any more."""
    deadline = time.monotonic() + 30
    for pid in pids:
        while _state(pid) not in ("gone", "Z"):
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
