"""Time and memory of every export and import, compared with a plain copy of as many bytes.

    python benchmarks/exporting.py                 shape 1b, random weights, fp32: 12 GB of disk
    python benchmarks/exporting.py --shape 124m

Each command runs in its own process. Memory is the peak resident size, including the pages of the
checkpoint that were read, which the system can reclaim.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from gnano.config.inference_config import FORMAT_DTYPES, ExportDtype, ExportFormat
from gnano.config.model_config import PRESETS
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

SHAPES = [name for name, shape in PRESETS.items() if shape.vocab_size == 50_257]  # GPT-2's


def write_checkpoint(shape: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = GPT.from_config(PRESETS[shape])
    tokenizer = load_gpt2_tokenizer()
    tokenizer.save(folder, model.config.block_size)
    save_model(model, folder, tokenizer.end_of_text_id)


def run_command(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and peak resident GB."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    took = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)}\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return took, usage.ru_maxrss * unit / 1e9


def copy_seconds(file: Path, size: int) -> float:
    """Return the seconds of a plain copy of `size` bytes to the disk."""
    target = file.with_name("copy")
    started = time.perf_counter()
    with file.open("rb") as source, target.open("wb") as out:
        left = size
        while left > 0 and (data := source.read(min(left, 2**24))):
            left -= out.write(data)
        os.fsync(out.fileno())
    took = time.perf_counter() - started
    target.unlink()
    return took


def measure_format(folder: Path, to: ExportFormat, dtype: ExportDtype) -> None:
    """Measure an export, a copy of as many bytes, and the import where that is possible."""
    model, out, back = folder / "model", folder / f"out.{to}", folder / "back"
    gnano = [sys.executable, "-m", "gnano"]
    export = ["export", str(model), "--to", to, "--dtype", dtype, "--out", str(out)]
    took, peak_gb = run_command([*gnano, *export])
    files = [file for file in out.rglob("*") if file.is_file()] or [out]
    size = sum(file.stat().st_size for file in files)
    times = took / copy_seconds(model / "model.safetensors", size)
    print(f"{to:<12}{dtype:<6}{size / 1e9:6.2f} GB{took:7.1f} s", end="")
    print(f"{times:6.1f} × a copy {peak_gb:6.2f} GB peak", end="", flush=True)
    if to != "onnx" and dtype not in ("q8_0", "q4_0"):
        options = ["--tokenizer", str(model)] if to in ("pt", "safetensors") else []
        took, peak_gb = run_command([*gnano, "import", str(out), "--out", str(back), *options])
        print(f"   import {took:5.1f} s {peak_gb:6.2f} GB peak", end="")
    print()
    for path in (out, back):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--only", nargs="*", default=list(FORMAT_DTYPES), help="formats")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        child = os.fork()  # its memory is part of no measurement
        if child == 0:
            write_checkpoint(args.shape, Path(name) / "model")
            os._exit(0)
        os.waitpid(child, 0)
        for to, dtypes in FORMAT_DTYPES.items():
            for dtype in dtypes if to in args.only else ():
                measure_format(Path(name), to, dtype)


if __name__ == "__main__":
    main()
