"""How long does an export take, and how much memory? Beside a plain copy of as many bytes.

    python benchmarks/exporting.py                 shape 1b, random weights, fp32: 12 GB of disk
    python benchmarks/exporting.py --shape 124m

Each runs in a process of its own. Memory is the most that it held at once, among it the pages of
the checkpoint that it had read, which the system may take back.
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

from gnano.config.export_config import FORMAT_DTYPES, ExportDtype, ExportFormat
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


def watched(command: list[str]) -> tuple[float, float]:
    """Seconds, and GB held at most."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    took = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)}\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    return took, usage.ru_maxrss * unit / 1e9


def copy_seconds(file: Path, size: int) -> float:
    """For a plain copy of so many bytes, to the disk."""
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


def try_one(folder: Path, to: ExportFormat, dtype: ExportDtype) -> None:
    """Out, beside a copy, and in again where that is possible; leaves the checkpoint alone."""
    model, out, back = folder / "model", folder / f"out.{to}", folder / "back"
    gnano = [sys.executable, "-m", "gnano"]
    asked = [str(model), "--to", to, "--dtype", dtype, "--out", str(out)]
    took, held = watched([*gnano, "export", *asked])
    files = [file for file in out.rglob("*") if file.is_file()] or [out]
    size = sum(file.stat().st_size for file in files)
    times = took / copy_seconds(model / "model.safetensors", size)
    print(f"{to:<12}{dtype:<6}{size / 1e9:6.2f} GB{took:7.1f} s", end="")
    print(f"{times:6.1f} × a copy {held:6.2f} GB held", end="", flush=True)
    if to != "onnx" and dtype not in ("q8_0", "q4_0"):
        words = ["--tokenizer", str(model)] if to in ("pt", "safetensors") else []
        took, held = watched([*gnano, "import", str(out), "--out", str(back), *words])
        print(f"   in again {took:5.1f} s {held:6.2f} GB held", end="")
    print()
    for path in (out, back):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--only", nargs="*", default=list(FORMAT_DTYPES), help="formats")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        child = os.fork()  # its memory is in nobody's figure
        if child == 0:
            write_checkpoint(asked.shape, Path(name) / "model")
            os._exit(0)
        os.waitpid(child, 0)
        for to, dtypes in FORMAT_DTYPES.items():
            for dtype in dtypes if to in asked.only else ():
                try_one(Path(name), to, dtype)


if __name__ == "__main__":
    main()
