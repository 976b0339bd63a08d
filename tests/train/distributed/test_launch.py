"""torchrun and accelerate start a run as the README shows."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.processes import free_port, losses
from tests.small_models import with_train

from gnano.config.recipe import Recipe

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ["torchrun", "--standalone", "--nproc-per-node", "2", "-m"],
    "accelerate": [
        "accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "PORT",
        "--module",
    ],
}  # fmt: skip


def launch(launcher: str, recipe: Recipe, run: Path) -> subprocess.CompletedProcess[str]:
    file = run.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    options = [str(free_port()) if word == "PORT" else word for word in LAUNCHERS[launcher]]
    gnano = ["gnano", "pretrain", str(file), "--out", str(run)]
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    environment = {key: value for key, value in os.environ.items() if key not in ranks}
    return subprocess.run(
        [str(BIN / options[0]), *options[1:], *gnano],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_two_ranks_that_train_one_model(recipe, tmp_path, launcher):
    run = tmp_path / "run"
    done = launch(launcher, with_train(recipe, steps=4, micro_batch_size=4), run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 of 4 steps done") == 1  # rank 0 only
    assert sorted(losses(run)) == [1, 2, 3, 4]
    assert "ranks = 2" in (run / "recipe.toml").read_text()


RESTARTED = """
import pathlib, sys, time
from gnano.train.distributed.context import DistContext

started = pathlib.Path(sys.argv[1])

def is_first():
    time.sleep(0.5)  # in which the other rank waits for the result
    return not started.exists()

with DistContext.init("cpu", timeout=60.0) as world:
    first = world.run_on_main(is_first)
    world.set_phase("working")
    world.all_reduce_max(0)
    if first and world.is_main:
        started.touch()
        raise ValueError("the first attempt fails")
    world.all_reduce_max(0)
    time.sleep(2)  # in which heartbeats and failures are read
    print(f"<done, {first}>", flush=True)
"""


@pytest.mark.ranks
@pytest.mark.slow
def test_restarted_ranks_do_not_read_what_the_failed_ones_stored(tmp_path):
    """The store of torchrun outlives the ranks: results, heartbeats and the failure are there."""
    script = tmp_path / "script.py"
    script.write_text(RESTARTED)
    options = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    torchrun = subprocess.run(
        [str(BIN / "torchrun"), *options, str(script), str(tmp_path / "started")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert torchrun.returncode == 0, torchrun.stdout
    assert "the first attempt fails" in torchrun.stdout
    assert torchrun.stdout.count("<done, False>") == 2
