"""Idle threads sleep in every process of ours, and how many there are can be asked for."""

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

# each ends by telling what the process, with torch loaded after it, has in its environment
SHOW = "import os, sys; print({name: os.environ.get(name) for name in %r}, 'torch' in sys.modules)"
DOORS = {
    "import gnano": "import gnano; SHOW",
    "gnano.load": "from gnano import load; SHOW",
    "a module of a worker": "import gnano.data.prepare.worker_pool; SHOW",
    "a worker process": (
        "import gnano, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    ),
}


def told(program: str, variables: dict[str, str]) -> str:
    env = {
        name: value for name, value in os.environ.items() if name not in WAIT_POLICY_VARIABLES
    } | variables
    show = SHOW % (WAIT_POLICY_VARIABLES,)
    command = [sys.executable, "-c", program.replace("SHOW", show), show]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("door", DOORS)
def test_threads_wait_asleep_and_torch_is_not_loaded_before_that_is_said(door: str) -> None:
    own = dict.fromkeys(WAIT_POLICY_VARIABLES) | {"OMP_WAIT_POLICY": "PASSIVE"}
    assert told(DOORS[door], {}) == f"{own} False\n"


@pytest.mark.parametrize("name", WAIT_POLICY_VARIABLES)
def test_what_the_user_set_stands(name: str) -> None:
    own = dict.fromkeys(WAIT_POLICY_VARIABLES) | {name: "7"}
    assert told(DOORS["import gnano"], {name: "7"}) == f"{own} False\n"


def test_the_openmp_that_torch_brings_has_heard_it() -> None:
    env = {name: value for name, value in os.environ.items() if name not in WAIT_POLICY_VARIABLES}
    found = subprocess.run(
        [sys.executable, "-c", "import gnano.model.transformer"],
        env=env | {"OMP_DISPLAY_ENV": "verbose"},  # on loading it prints what it goes by
        capture_output=True,
        text=True,
        check=True,
    )
    # the turns or milliseconds that a thread spins before it sleeps; OMP_WAIT_POLICY itself is
    # printed as PASSIVE by libgomp where it is not set at all
    spins = re.findall(r"(?:GOMP_SPINCOUNT|KMP_BLOCKTIME) *= *'([^']*)'", found.stderr)
    if not spins:
        pytest.skip("this PyTorch has no OpenMP that tells its settings")
    assert set(spins) <= {"0", "0ms"}


class AskedError(Exception):
    pass


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends what asks for a number of threads, telling the number."""

    def ask(count: int) -> None:
        raise AskedError(count)

    monkeypatch.setattr(torch, "set_num_threads", ask)


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
@pytest.mark.usefixtures("asking")
def test_every_command_that_opens_a_model_computes_with_the_threads_asked_for(
    command: str, base: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the river and the bird\n")
    words = command.replace("BASE", str(base)).replace("TEXT", str(text)).split()
    with pytest.raises(AskedError, match=r"^3$"):
        main([*words, "--threads", "3"])


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("kind", ["recipe", "tuning", "preferring"])
def test_so_does_training(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    recipe: Recipe = request.getfixturevalue(kind)
    with pytest.raises(AskedError, match=r"^3$"):
        train(with_train(recipe, threads=3), tmp_path / "run")


@pytest.mark.parametrize("threads", ["-1", "1025", "1000000000000"])
def test_a_number_of_threads_that_no_machine_has_is_refused(
    threads: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["generate", str(base), "the", "--threads", threads])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "threads is" in said and said.count("\n") == 1
