"""Training and preparation in separate processes, which tests can kill."""

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
    """Start `gnano pretrain` with the recipe in a separate process."""
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


# arguments: recipe, run folder, and the step after which the process sends itself SIGTERM
STOP_SCRIPT = """
import signal, sys
from pathlib import Path
from gnano.config.recipe import load_recipe
from gnano.train.trainer import train

def stop(row):
    if row["step"] == int(sys.argv[3]):
        signal.raise_signal(signal.SIGTERM)

result = train(load_recipe(sys.argv[1]), Path(sys.argv[2]), stop)
sys.exit(128 + result.stopped_by)
"""


def start_ranks(
    recipe: Recipe, run: Path, size: int, stop_after: int | None = None
) -> list[subprocess.Popen[bytes]]:
    """Start `gnano pretrain` on `size` ranks, with the environment that a launcher would set.

    With `stop_after`, rank 0 (and no other rank) gets SIGTERM after that step.
    """
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(run)]
    if stop_after is not None:
        command = [sys.executable, "-c", STOP_SCRIPT, str(file), str(run), str(stop_after)]
    return start_command_on_ranks(command, size)


def start_command_on_ranks(command: list[str], size: int) -> list[subprocess.Popen[bytes]]:
    """Start one process of the command per rank, each with its rank in the environment."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    rank_envs = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        for rank in range(size)
    ]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **rendezvous, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for env in rank_envs
    ]


def wait_for_outputs(ranks: list[subprocess.Popen[bytes]], timeout: float = 300) -> list[str]:
    """Wait until all ranks exit, and return what each printed; kill them if the time is up."""
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
    """Return a TCP port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as the log of the run has a row of this step."""
    deadline = time.monotonic() + 300
    log = run / "metrics.jsonl"
    while not (log.exists() and f'"step": {step},' in log.read_text()):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.005)


def kill_at(recipe: Recipe, run: Path, step: int) -> None:
    """Start the run, and send it SIGKILL as soon as its log has a row of this step."""
    process = start(recipe, run)
    wait_for_step(run, step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "the run ended before it could be killed"


def fingerprint(checkpoint: Path) -> dict[str, str]:
    """Return a hash of the bytes of each tensor: of the weights and of the training state."""
    from safetensors.torch import load_file

    files = sorted(checkpoint.rglob("*.safetensors"))
    assert len(files) > 1
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in files
        for name, tensor in load_file(file).items()
    }


def losses(run: Path) -> dict[int, tuple[float, float]]:
    """Return loss and gradient norm by step; of several rows of a step, those of the last."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}


# arguments: the minimal bytes of a task, then those of `gnano prepare`
PREPARE_SCRIPT = """
import sys
from gnano.cli import main
from gnano.data import source_files
source_files.MIN_TASK_BYTES = int(sys.argv[1])
main(["prepare", *sys.argv[2:]])
"""


def write_recipe(config: DataConfig, file: Path) -> Path:
    """Write a recipe that has only this data, and return its file."""
    file.write_text(tomli_w.dumps({"data": asdict(config)}))
    return file


def start_prepare(
    config: DataConfig, file: Path, min_task_bytes: int = 1
) -> subprocess.Popen[bytes]:
    """Start `gnano prepare` in a separate process, with tasks of at least `min_task_bytes`."""
    command = [
        sys.executable,
        "-c",
        PREPARE_SCRIPT,
        str(min_task_bytes),
        str(write_recipe(config, file)),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def children(pid: int) -> list[int]:
    """Return the ids of the child processes; none if the process has ended."""
    found: list[int] = []
    for file in Path("/proc", str(pid), "task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def wait_for_end(pids: list[int]) -> None:
    """Return when all of these processes have ended."""
    deadline = time.monotonic() + 30
    for pid in pids:
        while _state(pid) not in ("ended", "Z"):
            assert time.monotonic() < deadline, f"process {pid} is still running"
            time.sleep(0.02)


def _state(pid: int) -> str:
    """Return the letter of its state in /proc (Z: zombie), or "ended"."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "ended"
