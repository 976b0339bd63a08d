"""Everything that needs a GPU, in one report: checks, self-test, GPU tests, speed.

    make gpu                    or: python benchmarks/gpu_report.py

Runs the parts below one after another, each with its time limit, 30 minutes together, and writes
what they print to `gpu-report.txt` too. A part that fails or takes too long does not stop the next.
The exit code is 1 if one of them failed. Without a CUDA GPU only the first part runs, on the CPU.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import torch

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "gpu-report.txt"
STOP_SECONDS = 15.0
# names, minutes, arguments of Python
PARTS: list[tuple[str, float, list[str]]] = [
    ("gnano doctor", 8, ["-m", "gnano", "doctor"]),
    ("tests of the GPU", 5, ["-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider"]),
    ("training speed", 11, ["benchmarks/gpu.py", "--quick"]),
    ("generation speed", 6, ["benchmarks/generation.py", "--shape", "124m", "--rounds", "3"]),
]


def run_part(arguments: list[str], minutes: float, report: TextIO) -> str:
    """Copy the output of a process to the report and the terminal; return why it failed, or ""."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,  # so that its own processes can be stopped with it
    )  # fmt: skip
    is_late = threading.Event()

    def stop_late() -> None:
        is_late.set()
        stop(process)

    timer = threading.Timer(60 * minutes, stop_late)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            write(line, report)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:  # Ctrl-C
            stop(process)
    if is_late.is_set():
        return f"stopped after {minutes:g} minutes"
    return f"exit code {code}" if code else ""


def stop(process: subprocess.Popen[str]) -> None:
    """Interrupt a part, so that it ends its own processes; kill it if that takes too long."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def write(text: str, report: TextIO) -> None:
    for stream in (sys.stdout, report):
        stream.write(text)
        stream.flush()


def main() -> None:
    has_gpu = torch.cuda.is_available()
    results: list[tuple[str, str]] = []
    with REPORT.open("w", encoding="utf-8") as report:
        for name, minutes, arguments in PARTS:
            write(f"\n== {name}: python {' '.join(arguments)}\n\n", report)
            if results and not has_gpu:
                results.append((name, "not run: PyTorch finds no CUDA GPU here"))
                write(f"{results[-1][1]}\n", report)
                continue
            started = time.perf_counter()
            reason = run_part(arguments, minutes, report)
            took = f"{time.perf_counter() - started:.0f} s"
            results.append((name, f"FAILED, {reason}, {took}" if reason else f"passed, {took}"))
        write("\n== summary\n\n", report)
        for name, result in results:
            write(f"{name:<18} {result}\n", report)
    print(f"\n{REPORT}")
    sys.exit(any(result.startswith("FAILED") for _, result in results))


if __name__ == "__main__":
    main()
