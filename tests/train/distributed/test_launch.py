"""The launchers of the README start a run as they are: torchrun, and accelerate."""

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
    words = [str(free_port()) if word == "PORT" else word for word in LAUNCHERS[launcher]]
    command = [str(BIN / words[0]), *words[1:], "gnano", "pretrain", str(file), "--out", str(run)]
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_two_ranks_that_train_one_model(
    recipe: Recipe, tmp_path: Path, launcher: str
) -> None:
    run = tmp_path / "run"
    done = launch(launcher, with_train(recipe, steps=4, micro_batch_size=4), run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 of 4 steps done") == 1  # two ranks, one voice
    assert sorted(losses(run)) == [1, 2, 3, 4]
    assert "ranks = 2" in (run / "recipe.toml").read_text()


def test_torchrun_passes_on_the_reason_of_a_rank_that_failed(
    recipe: Recipe, tmp_path: Path
) -> None:
    wrong = with_train(recipe, steps=4, micro_batch_size=3)
    done = launch("torchrun", wrong, tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.count("gnano: 512 tokens a step cannot be split over 2 ranks") == 1
