"""Cost of a checkpoint: the pause of training, the time of the write, and a resume.

    python benchmarks/saving.py 124m            pause, write and resume, with real steps between
    python benchmarks/saving.py 1b --only-write size and time of the write: 13 GB of memory and disk

The limit is the same number of bytes written to one file and synced, before and after; the pause is
compared with the median step of the same run. Files go to --folder, on the disk to be measured.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gnano.checkpoint import async_writer as saving
from gnano.checkpoint.async_writer import AsyncCheckpointWriter
from gnano.checkpoint.format import CheckpointAssets, Snapshot, write_checkpoint
from gnano.checkpoint.run_checkpoints import verify_checksums
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.model.flops import num_parameters
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe
from gnano.train.distributed.context import DistContext
from gnano.train.train_step import TrainState
from gnano.utils.jsonl_log import EventLog
from gnano.utils.platform_support import disable_malloc_trim

BATCH, T = 2, 512  # small, so that a pause is visible
STEPS = 24  # a save starts after a third of them


def make_recipe(shape: ModelConfig) -> Recipe:
    settings = TrainConfig(
        steps=1_000,
        tokens_per_step=BATCH * T,
        micro_batch_size=BATCH,
        precision="bf16",
        compile="no",
    )
    return Recipe(model=replace(shape, block_size=T), train=settings)


def step(train_state: TrainState, number: int) -> float:
    started = time.perf_counter()
    ids = torch.randint(0, 4_096, (BATCH, T + 1))
    train_state.train_step([Batch(ids[:, :-1], ids[:, 1:], None)], number)
    return time.perf_counter() - started


def measure_pause(name: str, run: Path, tokenizer: Tokenizer) -> None:
    """Take steps before and during the write of a checkpoint, twice."""
    recipe = make_recipe(PRESETS[name])
    train_state = TrainState(recipe, run, DistContext(torch.device("cpu")))
    events, assets = EventLog(run, is_main=True), CheckpointAssets(recipe.model, tokenizer)
    writer = AsyncCheckpointWriter(run, recipe.train, assets, events.log, lambda _: None)
    step(train_state, 0)
    for which in ("first", "second"):
        before = [step(train_state, n) for n in range(STEPS // 3)]
        started = time.perf_counter()
        train_state.save(1 + (which == "second"), {}, writer)
        pause = time.perf_counter() - started
        during: list[float] = []
        while writer.thread is not None:
            during.append(step(train_state, 1))
            writer.poll()
        took = time.perf_counter() - started
        median = statistics.median(before)
        slower = sum(during) - len(during) * median
        print(
            f"{name}, {which} save: pause {pause:.2f} s = {pause / median:.2f} steps of "
            f"{median:.2f} s, written after {took:.1f} s; the {len(during)} steps during it took "
            f"{slower:.1f} s longer"
        )


def measure_write(name: str, run: Path, tokenizer: Tokenizer) -> None:
    """Measure the write alone, from tensors in memory."""
    shape = PRESETS[name]
    with torch.device("meta"):
        parameters = {n: p.shape for n, p in GPT.from_config(shape).named_parameters()}

    def filled(size: torch.Size) -> torch.Tensor:
        return torch.full(size, 0.1)

    weights = {n: filled(size) for n, size in parameters.items()}
    training = {
        f"{n}/{kind}": filled(size)
        for n, size in parameters.items()
        for kind in ("exp_avg", "exp_avg_sq")
    }
    snapshot = Snapshot(1, weights, training, {})
    started = time.perf_counter()
    folder = write_checkpoint(run, snapshot, CheckpointAssets(shape, tokenizer))
    written = time.perf_counter()
    verify_checksums(folder, from_disk=True)
    read = time.perf_counter()
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(
        f"{name}: {size / 1e9:.2f} GB in {written - started:.1f} s (written, hashed, on disk: "
        f"{size / 1e9 / (written - started):.2f} GB/s), read back in {read - written:.1f} s"
    )
    shutil.rmtree(folder)


def measure_limit(size: int, folder: Path) -> None:
    """Measure writing as many bytes to one file."""
    block = os.urandom(2**26)
    started = time.perf_counter()
    with (folder / "limit").open("wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
        os.fsync(file.fileno())
    took = time.perf_counter() - started
    print(f"limit: the same bytes in one file: {took:.1f} s ({size / 1e9 / took:.2f} GB/s)")
    (folder / "limit").unlink()


def measure_resume(name: str, run: Path) -> None:
    """Measure a new process from its start to the end of its first new step."""
    started = time.time()
    output = subprocess.run(
        [sys.executable, __file__, name, "--resume", str(run)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    loaded, restored, done = (float(at) - started for at in output)
    print(
        f"{name}, resume: {done:.1f} s to the end of the first new step (imports {loaded:.1f}, "
        f"checked and read {restored - loaded:.1f}, step {done - restored:.1f})"
    )


def resume(name: str, run: Path) -> None:
    """Print the times after the imports, after the restore, and after a step."""
    print(time.time())
    train_state = TrainState(make_recipe(PRESETS[name]), run, DistContext(torch.device("cpu")))
    print(time.time())
    step(train_state, train_state.completed_steps)
    print(time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("shape", nargs="?", default="124m", choices=list(PRESETS))
    parser.add_argument("--only-write", action="store_true", help="measure only the write")
    parser.add_argument("--folder", type=Path, help="folder on the disk to be measured")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.resume:
        return resume(args.shape, args.resume)
    disable_malloc_trim()
    saving.RETRY_INTERVAL = 1.0
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder, "run")
        (run / "checkpoints").mkdir(parents=True)
        tokenizer = train_bpe(["some text of a few words"] * 10, 260)
        size = 12 * num_parameters(PRESETS[args.shape])
        measure_limit(size, Path(folder))
        measure_write(args.shape, run, tokenizer)
        measure_limit(size, Path(folder))
        if not args.only_write:
            measure_pause(args.shape, run, tokenizer)
            measure_resume(args.shape, run)
    return None


if __name__ == "__main__":
    main()
