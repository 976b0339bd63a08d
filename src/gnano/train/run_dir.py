"""The folder of a run: its metadata, `recipe.toml`, and its lock; loads without torch.

    [model] [data] [train]    the resolved recipe, as it is now
    [run]                     facts of the start: versions, commit, data
    [[run.changes]]           changes that were allowed since: step, key, from, to

Only one process at a time may train in a folder: rank 0 holds a lock on `run.lock`. The kernel
releases it when the process ends, in whatever way, so a killed run needs no cleanup.
"""

import fcntl
import json
import os
import platform
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnano import __version__
from gnano.checkpoint.run_checkpoints import list_checkpoints
from gnano.config.recipe import Recipe, load_recipe
from gnano.model.flops import num_parameters
from gnano.utils.files import atomic_write_text, read_text, try_lock

if TYPE_CHECKING:
    from gnano.train.distributed.context import DistContext

RECIPE_FILE, METRICS_FILE, LOCK_FILE = "recipe.toml", "metrics.jsonl", "run.lock"
DATA_KEY = "data"  # the key of a change of the prepared data
LOCK_ATTEMPTS = 3  # `current_owner` in another process may hold the lock for a moment
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # UTC


@dataclass(frozen=True)
class RunMetadata:
    """The content of a run's `recipe.toml`."""

    recipe: Recipe
    facts: dict[str, Any]  # the table [run]
    data_fingerprint: str  # of the data that it trained on last


def has_started(run: Path) -> bool:
    """Return whether the run has a step or a checkpoint; before that its recipe may change."""
    log = run / METRICS_FILE
    return (run / RECIPE_FILE).is_file() and bool(
        list_checkpoints(run) or (log.is_file() and log.stat().st_size)
    )


def read_run_metadata(path: Path) -> RunMetadata:
    """Read a `recipe.toml`; raise ValueError where it is damaged."""
    try:
        recipe = load_recipe(str(path))
        facts = tomllib.loads(read_text(path)).get("run")
        if not isinstance(facts, dict) or not isinstance(facts.get("data_fingerprint"), str):
            raise ValueError("no table [run] with a data_fingerprint")
        data = [str(c["to"]) for c in facts.get("changes", ()) if c["key"] == DATA_KEY]
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).removeprefix(f"Recipe {path}").lstrip(": ").rstrip(".")
        raise ValueError(
            f"{path} is damaged, or of another version of gnano ({reason}): repair it or restore a "
            f"copy; or delete it, and the same command writes a new one, without a comparison."
        ) from None
    return RunMetadata(recipe, facts, [facts["data_fingerprint"], *data][-1])


def write_run_metadata(recipe: Recipe, facts: dict[str, Any], path: Path) -> None:
    """Write a `recipe.toml`."""
    import tomli_w

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, tomli_w.dumps({**asdict(recipe), "run": facts}))


def collect_run_facts(recipe: Recipe, fingerprint: str, world_size: int) -> dict[str, Any]:
    """Return the facts that a new run records."""
    import torch

    commit = ""  # of the checkout that contains this package
    with suppress(OSError):
        command, here = ["git", "rev-parse", "HEAD"], Path(__file__).parent
        found = subprocess.run(command, cwd=here, capture_output=True, encoding="utf-8")
        commit = found.stdout.strip()
    on_gpu = recipe.train.device == "cuda"
    return {
        "gnano": __version__,
        "git_commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ranks": world_size,
        **({"gpu": torch.cuda.get_device_name()} if on_gpu else {}),
        "parameters": num_parameters(recipe.model),
        "data_fingerprint": fingerprint,
        "started": time.strftime(TIME_FORMAT, time.gmtime()),
    }


@contextmanager
def run_lock(run: Path, world: "DistContext") -> Iterator[None]:
    """Hold the run's lock; raise ValueError where another process has it."""
    file = world.run_on_main(partial(_acquire_run_lock, run))
    try:
        yield
    finally:
        if world.is_main:
            if not (run / RECIPE_FILE).exists():  # refused before the run was created
                (run / LOCK_FILE).unlink(missing_ok=True)
                with suppress(OSError):  # the folder has other files
                    run.rmdir()
            os.close(file)


def _acquire_run_lock(run: Path) -> int:
    """Return the descriptor of the locked file, which names this process as its owner."""
    run.mkdir(parents=True, exist_ok=True)
    # not inherited by child processes, which may outlive this process
    file = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for _ in range(LOCK_ATTEMPTS):
        with suppress(BlockingIOError):
            try_lock(file, fcntl.LOCK_EX)
            break
        time.sleep(0.1)
    else:
        owner = _read_lock_owner(file)
        os.close(file)
        raise ValueError(
            f"{run} is being trained by process {owner.get('pid', '?')} on "
            f"{owner.get('host', '?')} since {owner.get('since', '?')}. Stop it first, or "
            f"choose another folder (--out)."
        )
    since = time.strftime(TIME_FORMAT, time.gmtime())
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode() + b"\n", 0)
    return file


def current_owner(run: Path) -> dict[str, Any] | None:
    """Return the process that trains this run now (pid, host, since), or None."""
    try:
        file = os.open(run / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try_lock(file, fcntl.LOCK_SH)
        return None
    except BlockingIOError:
        return _read_lock_owner(file)
    finally:
        os.close(file)


def _read_lock_owner(file: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
