"""Throughput of batches from shards in the page cache, compared with a plain copy.

    python benchmarks/batches.py

Prepares three sources of 8 M random tokens, reads the 40/25/35 mixture in batches of 8 × 1,024 and
of 16 × 256, and times in turns: gnano's batches; the limit, one `astype(int64)` over the same
number of tokens in file order (no order, no mixture, no targets); and nanoGPT's method, random
offsets into one flat file, one slice per row.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.prepare.pipeline import prepare

REPEATS = 7
MIX = {"web": 0.40, "synthetic": 0.25, "code": 0.35}


def make_corpus(folder: Path) -> TokenizedCorpus:
    """Prepare a corpus of random words."""
    rng = np.random.default_rng(0)
    words = np.array([f" w{n}" for n in range(2_000)])
    sources = {}
    for name in MIX:
        file = folder / f"{name}.txt"
        text = "\n\n".join("".join(rng.choice(words, 500)) for _ in range(4_000))
        file.write_text(f"{name}\n\n{text}")
        sources[name] = SourceConfig(weight=MIX[name], files=(str(file),))
    config = DataConfig(folder=str(folder / "data"), tokenizer="bpe-1000", sources=sources)
    prepare(config)
    return TokenizedCorpus(folder / "data")


def measure_seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder))
        flat = np.concatenate([corpus.shard_tokens(s, 0) for s in range(3)])
        print(f"{len(flat):,} tokens, medians of {REPEATS}, one process")
        for rows, length in ((8, 1_024), (16, 256)):
            batches = PackedDataset(corpus, MIX, 0, length)
            count = 2_000_000 // (rows * length)
            tokens = count * rows * length
            offsets = np.random.default_rng(1).integers(0, len(flat) - length - 1, count * rows)

            def read_dataset(
                first: int, count: int = count, b: PackedDataset = batches, n: int = rows
            ) -> None:
                for step in range(count):
                    b.read_batch(range(first + step * n, first + (step + 1) * n))

            def read_flat_slices(at: np.ndarray = offsets, n: int = rows, T: int = length) -> None:
                for first in range(0, len(at), n):
                    part = at[first : first + n]
                    torch.stack([torch.from_numpy(flat[i : i + T].astype(np.int64)) for i in part])
                    torch.stack(
                        [torch.from_numpy(flat[i + 1 : i + T + 1].astype(np.int64)) for i in part]
                    )

            times: dict[str, list[float]] = {"gnano": [], "flat slices": [], "limit: one copy": []}
            for repeat in range(REPEATS):
                first = repeat * count * rows
                times["gnano"].append(measure_seconds(lambda first=first: read_dataset(first)))  # type: ignore[misc]
                times["flat slices"].append(measure_seconds(read_flat_slices))
                times["limit: one copy"].append(
                    measure_seconds(lambda tokens=tokens: flat[:tokens].astype(np.int64))  # type: ignore[misc]
                )
            print(f"\nbatches of {rows} × {length:,}")
            base = statistics.median(times["gnano"])
            for name, taken in times.items():
                median = statistics.median(taken)
                print(
                    f"  {name:<16} {tokens / median / 1e6:8.1f} M tokens/s"
                    f"  ({min(taken) / median:.2f} … {max(taken) / median:.2f} of the median time)"
                    f"  {base / median:6.2f} × gnano's speed"
                )


if __name__ == "__main__":
    main()
