"""Idle OpenMP threads sleep in every process of gnano, and their number can be set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.small_models import with_train

from gnano.cli import main
from gnano.config.recipe import Recipe
from gnano.train.trainer import train
from gnano.utils.platform_support import WAIT_POLICY_VARIABLES

# each prints the environment, and whether torch has been imported
SHOW = "import os, sys; print({name: os.environ.get(name) for name in %r}, 'torch' in sys.modules)"
ENTRY_POINTS = {
    "import gnano": "import gnano; SHOW",
    "gnano.load": "from gnano import load; SHOW",
    "a module of a worker": "import gnano.data.prepare.worker_pool; SHOW",
    "a worker process": (
        "import gnano, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    ),
}


def run_and_show(program: str, variables: dict[str, str]) -> str:
    env = {
        name: value for name, value in os.environ.items() if name not in WAIT_POLICY_VARIABLES
    } | variables
    show = SHOW % (WAIT_POLICY_VARIABLES,)
    command = [sys.executable, "-c", program.replace("SHOW", show), show]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_the_wait_policy_is_set_before_torch_is_imported(entry: str) -> None:
    own = dict.fromkeys(WAIT_POLICY_VARIABLES) | {"OMP_WAIT_POLICY": "PASSIVE"}
    assert run_and_show(ENTRY_POINTS[entry], {}) == f"{own} False\n"


@pytest.mark.parametrize("name", WAIT_POLICY_VARIABLES)
def test_a_setting_of_the_user_is_kept(name: str) -> None:
    own = dict.fromkeys(WAIT_POLICY_VARIABLES) | {name: "7"}
    assert run_and_show(ENTRY_POINTS["import gnano"], {name: "7"}) == f"{own} False\n"


@pytest.mark.slow
def test_torch_uses_the_wait_policy() -> None:
    env = {name: value for name, value in os.environ.items() if name not in WAIT_POLICY_VARIABLES}
    found = subprocess.run(
        [sys.executable, "-c", "import gnano.model.transformer"],
        env=env | {"OMP_DISPLAY_ENV": "verbose"},  # OpenMP prints its settings when it is loaded
        capture_output=True,
        text=True,
        check=True,
    )
    # turns or milliseconds that a thread spins before it sleeps; OMP_WAIT_POLICY itself is no
    # evidence, as libgomp prints PASSIVE even where it is not set
    spins = re.findall(r"(?:GOMP_SPINCOUNT|KMP_BLOCKTIME) *= *'([^']*)'", found.stderr)
    if not spins:
        pytest.skip("this PyTorch has no OpenMP that prints its settings")
    assert set(spins) <= {"0", "0ms"}


class ThreadCountError(Exception):
    pass


@pytest.fixture
def raising_set_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `torch.set_num_threads` raise the number of threads."""

    def raise_count(count: int) -> None:
        raise ThreadCountError(count)

    monkeypatch.setattr(torch, "set_num_threads", raise_count)


@pytest.mark.parametrize(
    "command",
    [
        "generate BASE the",
        "chat BASE --prompt the",
        "bench BASE",
        "smoke BASE",
        "eval BASE --text TEXT",
        "compare BASE --text TEXT",
    ],
)
@pytest.mark.usefixtures("raising_set_num_threads")
def test_every_command_with_a_model_sets_the_threads(
    command: str, base: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the river and the bird\n")
    words = command.replace("BASE", str(base)).replace("TEXT", str(text)).split()
    with pytest.raises(ThreadCountError, match=r"^3$"):
        main([*words, "--threads", "3"])


@pytest.mark.usefixtures("raising_set_num_threads")
@pytest.mark.parametrize("kind", ["recipe", "sft_recipe", "dpo_recipe"])
def test_training_sets_the_threads(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(kind)
    with pytest.raises(ThreadCountError, match=r"^3$"):
        train(with_train(recipe, threads=3), tmp_path / "run")


@pytest.mark.parametrize("threads", ["-1", "1025", "1000000000000"])
def test_an_impossible_number_of_threads_is_refused(
    threads: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", str(base), "the", "--threads", threads])
    stderr = capsys.readouterr().err
    assert stopped.value.code == 2 and "threads is" in stderr and stderr.count("\n") == 1
