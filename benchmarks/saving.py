"""What does a checkpoint cost? The pause that training sees, the seconds of a write, a resume.

    python benchmarks/saving.py 124m            pause, write and resume, with real steps between
    python benchmarks/saving.py 1b --only-write bytes and seconds alone: 13 GB of memory and disk

The limit is the same number of bytes written and forced to disk in one go, before and after; the
pause is told beside the median step of the same run. Files go to --folder, on the disk that is
to be measured.
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
from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import CheckpointAssets, Snapshot, write_checkpoint
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.model.devices import disable_malloc_trim
from gnano.model.flops import num_parameters
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe
from gnano.train.distributed.context import DistContext
from gnano.train.train_step import TrainState
from gnano.utils.jsonl_log import EventLog

BATCH, T = 2, 512  # of a step: small, so that a pause shows
STEPS = 24  # the save is begun after a third of them


def recipe_of(shape: ModelConfig) -> Recipe:
    settings = TrainConfig(
        steps=1_000,
        tokens_per_step=BATCH * T,
        micro_batch_size=BATCH,
        precision="bf16",
        compile="no",
    )
    return Recipe(model=replace(shape, block_size=T), train=settings)


def step(trainee: TrainState, number: int) -> float:
    started = time.perf_counter()
    ids = torch.randint(0, 4_096, (BATCH, T + 1))
    trainee.train_step([Batch(ids[:, :-1], ids[:, 1:], None)], number)
    return time.perf_counter() - started


def pause(name: str, run: Path, tokenizer: Tokenizer) -> None:
    """Steps, of which some are taken while a checkpoint is written; twice."""
    recipe = recipe_of(PRESETS[name])
    trainee = TrainState(recipe, run, DistContext(torch.device("cpu")))
    events, beside = EventLog(run, is_main=True), CheckpointAssets(recipe.model, tokenizer)
    saver = AsyncCheckpointWriter(run, recipe.train, beside, events.log, lambda _: None)
    step(trainee, 0)
    for which in ("first", "second"):
        before = [step(trainee, n) for n in range(STEPS // 3)]
        started = time.perf_counter()
        trainee.save(1 + (which == "second"), {}, saver)
        seen = time.perf_counter() - started
        during: list[float] = []
        while saver.thread is not None:
            during.append(step(trainee, 1))
            saver.poll()
        took = time.perf_counter() - started
        usual = statistics.median(before)
        slower = sum(during) - len(during) * usual
        print(
            f"{name}, {which} save: pause {seen:.2f} s = {seen / usual:.2f} steps of {usual:.2f} "
            f"s, written after {took:.1f} s; the {len(during)} steps meanwhile took {slower:.1f} s "
            f"more"
        )
    saver.wait_until_saved()


def write(name: str, run: Path, tokenizer: Tokenizer) -> None:
    """The write alone, from tensors that are there."""
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


def limit(size: int, folder: Path) -> None:
    """The same bytes in one file, nothing else."""
    block = os.urandom(2**26)
    started = time.perf_counter()
    with (folder / "limit").open("wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
        os.fsync(file.fileno())
    took = time.perf_counter() - started
    print(f"limit: the same bytes in one file: {took:.1f} s ({size / 1e9 / took:.2f} GB/s)")
    (folder / "limit").unlink()


def resume(name: str, run: Path) -> None:
    """A new process, from its start to the end of its first new step."""
    started = time.time()
    told = subprocess.run(
        [sys.executable, __file__, name, "--resume", str(run)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    loaded, restored, done = (float(at) - started for at in told)
    print(
        f"{name}, resume: {done:.1f} s to the end of the first new step (imports {loaded:.1f}, "
        f"checked and read {restored - loaded:.1f}, step {done - restored:.1f})"
    )


def resumed(name: str, run: Path) -> None:
    print(time.time())
    trainee = TrainState(recipe_of(PRESETS[name]), run, DistContext(torch.device("cpu")))
    print(time.time())
    step(trainee, trainee.completed_steps)
    print(time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("shape", nargs="?", default="124m", choices=list(PRESETS))
    parser.add_argument("--only-write", action="store_true", help="bytes and seconds alone")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.resume:
        return resumed(asked.shape, asked.resume)
    disable_malloc_trim()
    saving.RETRY_INTERVAL = 1.0
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        run = Path(folder, "run")
        (run / "checkpoints").mkdir(parents=True)
        tokenizer = train_bpe(["some text of a few words"] * 10, 260)
        size = 12 * num_parameters(PRESETS[asked.shape])
        limit(size, Path(folder))
        write(asked.shape, run, tokenizer)
        limit(size, Path(folder))
        if not asked.only_write:
            pause(asked.shape, run, tokenizer)
            resume(asked.shape, run)
    return None


if __name__ == "__main__":
    main()
