"""Runs programs on a GPU that computes nothing: `shim.c` answers PyTorch's calls to the driver.

All above the driver is real: PyTorch's dispatcher, allocator, streams and graph capture, Inductor,
Triton and ptxas. It takes a CUDA build of PyTorch, which `make shim` installs in `.venv-cuda`
(2.5 GB), and gcc with CUDA's headers, which that installs too. `GNANO_CUDA_PYTHON` names another
Python that has them.
"""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("GNANO_CUDA_PYTHON", ROOT / ".venv-cuda/bin/python"))
TIMEOUT = 600  # seconds; compiling the step of a 1b takes up to a minute


@cache
def build_shim() -> Path:
    """Return the folder of the compiled shim; skip the test where it cannot be built."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    packages = Path(
        run_with_cuda_build(["-c", "import nvidia.cu13; print(*nvidia.cu13.__path__)"]).strip()
    )
    folder = ROOT / ".pytest_cache/shim"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{os.getpid()}.so"
    name = ["-Wl,-soname,libcuda.so.1", "-o", str(library), str(Path(__file__).with_name("shim.c"))]
    flags = ["-O1", "-shared", "-fPIC", "-w", f"-I{packages / 'include'}"]
    subprocess.run(["gcc", *flags, *name, "-ldl", "-lpthread"], check=True)
    library.replace(folder / "libcuda.so.1")  # at once: other tests may be using it
    return folder


def run_on_fake_gpu(program: str, compute_capability: int = 90, **arguments: Any) -> Any:
    """Return the result of a function of `programs.py`."""
    folder = build_shim()
    environment = {
        "LD_PRELOAD": str(folder / "libcuda.so.1"),
        "LD_LIBRARY_PATH": str(folder),
        "TRITON_LIBCUDA_PATH": str(folder),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "SHIM_CC": str(compute_capability),
    }
    output = run_with_cuda_build(
        ["-m", "tests.gpu.programs", program, json.dumps(arguments)], environment
    )
    return json.loads(output.splitlines()[-1])


def run_with_cuda_build(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what a command prints in the Python with a CUDA build; skip the test without one."""
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} does not exist; `make shim` installs a CUDA build of PyTorch")
    paths = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        [PYTHON, *command], cwd=ROOT, env=os.environ | paths | (environment or {}),
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
