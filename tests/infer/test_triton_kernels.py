"""The Triton kernels compute what their twins compute, and fit the registers of each GPU."""

import pytest
from tests.gpu.fake_gpu import run_with_cuda_build

pytestmark = pytest.mark.slow


def run_program(*arguments: str, interpret: bool) -> None:
    environment = {"TRITON_INTERPRET": str(int(interpret))}
    run_with_cuda_build(["-m", "tests.infer.triton_programs", *arguments], environment)


@pytest.mark.parametrize("program", ["products", "attention"])
def test_kernels_compute_what_their_twins_compute(program):
    run_program(program, interpret=True)


@pytest.mark.parametrize("capability", ["80", "90", "100", "120"])
def test_kernels_compile_without_spilling_registers(capability):
    run_program("compile", capability, interpret=False)
