"""How fast do batches come out of shards in the page cache? Beside a plain copy of them.

    python benchmarks/batches.py

Makes three sources of 8 M random tokens, deals the 40/25/35 mix in batches of 8 × 1,024 and
of 16 × 256, and times, in turns: our batches; the limit, one `astype(int64)` over the
same number of tokens in file order (no order, no mix, no pairs); and nanoGPT's way, random
offsets into one flat file, a slice a row.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.packed_dataset import PackedDataset
from gnano.data.prepare.pipeline import prepare
from gnano.data.tokenized_corpus import TokenizedCorpus

REPEATS = 7
MIX = {"web": 0.40, "synthetic": 0.25, "code": 0.35}


def corpus(folder: Path) -> TokenizedCorpus:
    """Shards of random words, through the real preparation."""
    draw = np.random.default_rng(0)
    words = np.array([f" w{n}" for n in range(2_000)])
    sources = {}
    for name in MIX:
        file = folder / f"{name}.txt"
        text = "\n\n".join("".join(draw.choice(words, 500)) for _ in range(4_000))
        file.write_text(f"{name}\n\n{text}")
        sources[name] = SourceConfig(weight=MIX[name], files=(str(file),))
    config = DataConfig(folder=str(folder / "data"), tokenizer="bpe-1000", sources=sources)
    prepare(config)
    return TokenizedCorpus(folder / "data")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        opened = corpus(Path(name))
        flat = np.concatenate([opened.shard_tokens(s, 0) for s in range(3)])
        print(f"{len(flat):,} tokens, medians of {REPEATS}, one process")
        for rows, length in ((8, 1_024), (16, 256)):
            batches = PackedDataset(opened, MIX, 0, length)
            count = 2_000_000 // (rows * length)
            tokens = count * rows * length
            offsets = np.random.default_rng(1).integers(0, len(flat) - length - 1, count * rows)

            def ours(
                first: int, count: int = count, b: PackedDataset = batches, n: int = rows
            ) -> None:
                for step in range(count):
                    b.read_batch(range(first + step * n, first + (step + 1) * n))

            def flat_slices(at: np.ndarray = offsets, n: int = rows, T: int = length) -> None:
                for first in range(0, len(at), n):
                    part = at[first : first + n]
                    torch.stack([torch.from_numpy(flat[i : i + T].astype(np.int64)) for i in part])
                    torch.stack(
                        [torch.from_numpy(flat[i + 1 : i + T + 1].astype(np.int64)) for i in part]
                    )

            times: dict[str, list[float]] = {"ours": [], "flat slices": [], "limit: one copy": []}
            for repeat in range(REPEATS):
                first = repeat * count * rows
                times["ours"].append(seconds(lambda first=first: ours(first)))  # type: ignore[misc]
                times["flat slices"].append(seconds(flat_slices))
                times["limit: one copy"].append(
                    seconds(lambda tokens=tokens: flat[:tokens].astype(np.int64))  # type: ignore[misc]
                )
            print(f"\nbatches of {rows} × {length:,}")
            base = statistics.median(times["ours"])
            for what, taken in times.items():
                median = statistics.median(taken)
                print(
                    f"  {what:<16} {tokens / median / 1e6:8.1f} M tokens/s"
                    f"  ({min(taken) / median:.2f} … {max(taken) / median:.2f} of the median time)"
                    f"  {base / median:6.2f} × our speed"
                )


if __name__ == "__main__":
    main()
