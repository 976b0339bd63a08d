"""Scaling from one process to two on a CPU, over gloo with one thread each.

    python benchmarks/scaling.py [demo|10m] [ROUNDS]

The same recipe and global batch with `python -m gnano pretrain`, in turns: one process; two ranks
with DDP; two ranks with FSDP. For comparison one process with two threads, the other way to use two
cores; and as the limit two independent processes, which shows setup the machine's memory and clock
allow. Speeds are medians over the steps of a run, then over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import tomli_w
import torch

from gnano.config.model_config import PRESETS
from gnano.config.recipe import Recipe, load_recipe
from gnano.data.prepare.pipeline import prepare
from gnano.train.resolve import choose_precision

Parallel = Literal["auto", "ddp", "fsdp"]
STEPS, WARMUP, MICRO_BATCH, TOKENS = 20, 4, 8, 4_096
PYTHON = [sys.executable, "-m"]
RANKS = [*PYTHON, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def prepare_recipe(name: str, folder: Path) -> Recipe:
    """Prepare some of the demo's text; return a recipe with another shape and larger steps."""
    demo = load_recipe("demo")
    sources = {
        key: replace(part, max_bytes=1_500_000)
        for key, part in demo.pretraining_data.sources.items()
    }
    data = replace(
        demo.pretraining_data, folder=str(folder / "data"), sources=sources, heldout_fraction=0.002
    )
    settings = replace(
        demo.train,
        steps=STEPS,
        tokens_per_step=TOKENS,
        micro_batch_size=MICRO_BATCH,
        precision=choose_precision(torch.device("cpu")),
        device="cpu",
        eval_every=0,
        eval_tokens=256,
    )
    prepare(data)
    return Recipe(model=PRESETS[name], data=data, train=settings)


def start(recipe: Recipe, out: Path, threads: int, launcher: list[str]) -> "subprocess.Popen[str]":
    file = out.with_suffix(".toml")
    file.write_text(tomli_w.dumps(asdict(recipe)))
    command = [*launcher, "gnano", "pretrain", str(file), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def speed(process: "subprocess.Popen[str]", out: Path) -> float:
    """Return the median tokens per second of a run's steps after the warm-up."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(output)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return float(statistics.median(row["tokens_per_s"] for row in rows[WARMUP:-1]))


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        recipe = prepare_recipe(name, work_dir)

        def measure(
            setup: str, n: int, parallel: Parallel, threads: int, launcher: list[str], count: int
        ) -> None:
            own = replace(recipe, train=replace(recipe.train, parallel=parallel))
            outs = [
                work_dir / f"{setup.split(':')[0].replace(' ', '-')}-{n}-{i}" for i in range(count)
            ]
            running = [start(own, out, threads, launcher) for out in outs]
            total = sum(speed(process, out) for process, out in zip(running, outs, strict=True))
            speeds.setdefault(setup, []).append(total)

        for n in range(rounds):
            measure("1 process", n, "auto", 1, PYTHON, 1)
            measure("2 ranks, ddp", n, "ddp", 1, RANKS, 1)
            measure("2 ranks, fsdp", n, "fsdp", 1, RANKS, 1)
            measure("1 process, 2 threads", n, "auto", 2, PYTHON, 1)
            measure("limit: 2 independent processes", n, "auto", 1, PYTHON, 2)
    print(
        f"shape {name}, {recipe.train.precision}, {TOKENS:,} tokens a step in micro-batches of "
        f"{MICRO_BATCH} × {recipe.model.block_size}, one thread each, medians of {rounds} rounds"
    )
    base = speeds["1 process"]
    for setup, taken in speeds.items():
        ratios = [a / b for a, b in zip(taken, base, strict=True)]
        print(
            f"  {setup:<38} {statistics.median(taken):8,.0f} tokens/s"
            f"  {statistics.median(ratios):5.2f} × ({min(ratios):.2f} … {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
