"""Overhead of the trainer per step, compared with a bare PyTorch loop.

    python benchmarks/overhead.py [demo|10m] [STEPS]

`gnano.train.trainer.train` runs on a prepared corpus with batches from shards, metrics, the status
line and checks; held-out losses and checkpoints are timed separately. After each of its steps, a
bare loop takes one in the same process: the same model and shape, random tokens in memory, loss,
backward, PyTorch's `clip_grad_norm_` and fused AdamW. Both therefore run under the same load of the
machine. A step has 4 sequences of 256 tokens.

On a machine with other users, set OMP_NUM_THREADS=1 and compare processor time, which does not
include time in which other processes run.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.model.transformer import GPT
from gnano.train.logging.metrics_logger import ProgressBar
from gnano.train.resolve import choose_precision
from gnano.train.train_step import COMPUTE_DTYPES
from gnano.train.trainer import train
from gnano.utils.terminal import StatusLine

BATCH, LENGTH, WARMUP = 4, 256, 10


def recipe_for(shape: ModelConfig, folder: Path, steps: int) -> Recipe:
    """Return the demo's recipe with less text and another model shape."""
    demo = load_recipe("demo")
    sources = {
        name: replace(source, max_bytes=1_500_000)
        for name, source in demo.pretraining_data.sources.items()
    }
    settings = replace(
        demo.train,
        steps=steps,
        tokens_per_step=BATCH * LENGTH,
        micro_batch_size=BATCH,
        precision=choose_precision(torch.device("cpu")),
        device="cpu",
        eval_every=0,
        eval_tokens=LENGTH,
        save_every=steps + 1,
    )
    data = replace(
        demo.pretraining_data, folder=str(folder / "data"), sources=sources, heldout_fraction=0.002
    )
    return Recipe(model=shape, data=data, train=settings)


def bare_loop(recipe: Recipe) -> Callable[[], None]:
    """Return a step of a minimal PyTorch training loop."""
    model = GPT.from_config(recipe.model)
    model.compute_dtype = COMPUTE_DTYPES[recipe.train.precision]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.dim() >= 2]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=3e-4,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=True,
    )
    ids_BT = torch.randint(0, recipe.model.vocab_size, (BATCH, LENGTH + 1))
    inputs_BT, targets_BT = ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()

    def step() -> None:
        loss = model.loss(inputs_BT, targets_BT) / (BATCH * LENGTH)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@dataclass
class Times:
    """Wall-clock and processor seconds of each step."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, since: tuple[float, float]) -> tuple[float, float]:
        """Add the time since `since`; return the current time."""
        now = time.perf_counter(), time.process_time()
        self.wall.append(now[0] - since[0])
        self.processor.append(now[1] - since[1])
        return now


def measure(recipe: Recipe, run: Path) -> tuple[Times, Times, float]:
    """Return the times of the trainer's and the bare loop's steps, and of a checkpoint."""
    own, bare = Times(), Times()
    step = bare_loop(recipe)
    progress = ProgressBar(StatusLine(io.StringIO()))
    since = 0.0, 0.0

    def on_step(row: dict[str, Any]) -> None:
        nonlocal since
        progress.update(row)
        if row["step"] > WARMUP and not row.get(
            "final"
        ):  # the last step also evaluates held-out text
            since = own.add(since)
            step()
            since = bare.add(since)
        since = time.perf_counter(), time.process_time()

    train(recipe, run, on_step)
    return own, bare, time.perf_counter() - since[0]


def compare(name: str, own: list[float], bare: list[float]) -> None:
    def format_times(times: list[float]) -> str:
        low, median, high = (1e3 * cut for cut in statistics.quantiles(times, n=4))
        return f"{median:8.2f} ms ({low:.2f} … {high:.2f})"

    pairs = statistics.median(a / b for a, b in zip(own, bare, strict=True)) - 1
    share = statistics.median(own) / statistics.median(bare) - 1
    print(f"  {name:<15}  bare loop {format_times(bare)}   trainer {format_times(own)}")
    print(f"  {'':<15}  data and bookkeeping {share:+.1%}; {pairs:+.1%} in the median pair")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(PRESETS[name], Path(folder), steps)
        prepare(recipe.pretraining_data)
        vocab_size = TokenizedCorpus(Path(recipe.pretraining_data.folder)).manifest.tokenizer[
            "vocab_size"
        ]
        assert vocab_size == recipe.model.vocab_size
        own, bare, checkpoint = measure(recipe, Path(folder) / "run")
    print(
        f"shape {name}, {recipe.train.precision}, {torch.get_num_threads()} threads, "
        f"{BATCH} × {LENGTH} tokens a step, medians of {len(own.wall)} (quartiles), taking turns"
    )
    compare("clock", own.wall, bare.wall)
    compare("processor", own.processor, bare.processor)
    print(f"  a checkpoint takes {checkpoint:.2f} s")


if __name__ == "__main__":
    main()
