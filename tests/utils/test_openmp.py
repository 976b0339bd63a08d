"""Idle threads sleep in every process of ours, unless the environment says how they wait."""

import os
import subprocess
import sys

import pytest

from gnano.utils.openmp import VARIABLES

# each ends by telling what the process, with torch loaded after it, has in its environment
SHOW = "import os, sys; print({name: os.environ.get(name) for name in %r}, 'torch' in sys.modules)"
DOORS = {
    "import gnano": "import gnano; SHOW",
    "gnano.load": "from gnano import load; SHOW",
    "a module of a worker": "import gnano.data.preparing.workers; SHOW",
    "a worker process": (
        "import gnano, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    ),
}


def told(program: str, variables: dict[str, str]) -> str:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    show = SHOW % (VARIABLES,)
    command = [sys.executable, "-c", program.replace("SHOW", show), show]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("door", DOORS)
def test_threads_wait_asleep_and_torch_is_not_loaded_before_that_is_said(door: str) -> None:
    own = dict.fromkeys(VARIABLES) | {"OMP_WAIT_POLICY": "PASSIVE"}
    assert told(DOORS[door], {}) == f"{own} False\n"


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_set_stands(name: str) -> None:
    own = dict.fromkeys(VARIABLES) | {name: "7"}
    assert told(DOORS["import gnano"], {name: "7"}) == f"{own} False\n"


def test_the_openmp_that_torch_brings_has_heard_it() -> None:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    found = subprocess.run(
        [sys.executable, "-c", "import gnano.model.gpt"],
        env=env | {"OMP_DISPLAY_ENV": "true"},  # on loading it prints what it goes by
        capture_output=True,
        text=True,
        check=True,
    )
    if "OMP_" not in found.stderr:
        pytest.skip("this PyTorch has no OpenMP that tells its settings")
    assert (
        "OMP_WAIT_POLICY = 'PASSIVE'" in found.stderr or "OMP_WAIT_POLICY='PASSIVE'" in found.stderr
    )
