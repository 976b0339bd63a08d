"""The Triton kernels compute what their twins compute, and fit the registers of each GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="Triton comes with PyTorch's CUDA build only",
    ),
]


def run_program(*arguments: str, interpret: bool) -> None:
    command = [sys.executable, "-m", "tests.infer.triton_programs", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpret))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["products", "attention"])
def test_kernels_compute_what_their_twins_compute(program):
    run_program(program, interpret=True)


@pytest.mark.parametrize("capability", ["80", "90", "100", "120"])
def test_kernels_compile_without_spilling_registers(capability):
    run_program("compile", capability, interpret=False)
