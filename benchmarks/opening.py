"""Time to open a large data folder, and to read any of its samples.

    python benchmarks/opening.py

Simulates the reference run's folder, 13 billion tokens (26 GB) in three sources, with sparse files:
sizes and manifest are real, the content is zeros that use no disk. Measured in a new process each
time: opening it (`TokenizedCorpus` and `PackedDataset`), the first batch without checksums, random
samples over ten epochs, batches in sequence as in training; and the limit, a copy of as many bytes
from one array.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.manifest import Manifest, SourceInfo, TaskInfo
from gnano.data.prepare.pipeline import prepare
from gnano.data.shards import ShardInfo

SHARD_TOKENS = 2**26
DOCUMENT_TOKENS = 1_000
SHARDS = {"web": 78, "synthetic": 49, "code": 68}  # 13.1 billion tokens
MIX = {"web": 0.40, "synthetic": 0.25, "code": 0.35}
REPEATS = 5


def simulate(folder: Path) -> None:
    """Write a finished folder with a real manifest and tokenizer, and sparse shards."""
    (folder / "text.txt").write_text("some words of text to train a tokenizer on")
    source = SourceConfig(files=(str(folder / "text.txt"),))
    config = DataConfig(
        folder=str(folder / "data"),
        tokenizer="bpe-260",
        heldout_fraction=0,
        sources={"web": source},
    )
    manifest = prepare(config)
    plan = manifest.plan.sources["web"]
    manifest.plan.sources.clear()
    manifest.sources.clear()
    for name, count in SHARDS.items():
        source_folder = folder / "data" / name
        source_folder.mkdir(exist_ok=True)
        shards = []
        for number in range(count):
            info = ShardInfo(
                name=f"{number:05}-000",
                tokens=SHARD_TOKENS,
                documents=SHARD_TOKENS // DOCUMENT_TOKENS,
                bytes=4 * SHARD_TOKENS,
                sha256_tokens="0" * 64,
                sha256_docs="0" * 64,
            )
            for suffix, size in (("tokens", 2 * SHARD_TOKENS), ("docs", 4 * info.documents)):
                with (source_folder / f"{info.name}.{suffix}").open("wb") as file:
                    file.truncate(size)
            shards.append(info)
        task = TaskInfo(shards=shards, heldout=None, read=0, dropped={}, lengths=[0] * 32)
        manifest.plan.sources[name] = plan
        manifest.sources[name] = SourceInfo(tasks=[task], complete=True)
    manifest.weights = MIX
    manifest.save(folder / "data")
    assert Manifest.load(folder / "data").complete


def measure(folder: Path) -> dict[str, float]:
    """Return the measurements of one process."""
    from gnano.utils.platform_support import peak_resident_bytes

    def resident() -> float:
        return peak_resident_bytes() / 2**20

    started_at = time.perf_counter()
    from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus

    corpus = TokenizedCorpus(folder / "data", verify_checksums=False)
    batches = PackedDataset(corpus, MIX, 0, 1_024)
    results = {"open_s": time.perf_counter() - started_at, "total_mb": resident()}

    import torch  # not part of opening

    results["torch_mb"] = resident() - results["total_mb"]
    rng = np.random.default_rng(0)
    times = []
    for i in rng.integers(0, 10 * 13_000_000, 2_000):
        start = time.perf_counter()
        batches.read_batch([int(i)])
        times.append(time.perf_counter() - start)
    results["sample_median_ms"] = 1e3 * statistics.median(times)
    results["sample_worst_ms"] = 1e3 * max(times)
    for warm in (False, True):
        times = []
        for step in range(1_000):
            start = time.perf_counter()
            batches.read_batch(range(8 * step, 8 * step + 8))
            times.append(time.perf_counter() - start)
        if warm:
            results["batch_median_ms"] = 1e3 * statistics.median(times)
            results["batch_worst_ms"] = 1e3 * max(times)
    flat = np.zeros(2**24, np.uint16)
    copies = []
    for at in rng.integers(0, 2**24 - 8 * 1_025, 1_000):
        start = time.perf_counter()
        torch.from_numpy(flat[at : at + 8 * 1_025].astype(np.int64))
        copies.append(time.perf_counter() - start)
    results["copy_median_ms"] = 1e3 * statistics.median(copies)
    return results


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name))
        runs = []
        for _ in range(REPEATS):
            command = [sys.executable, __file__, name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(output))
    print(
        f"{sum(SHARDS.values()) * SHARD_TOKENS * 2 / 1e9:.1f} GB in {sum(SHARDS.values())} shards"
    )
    print(f"median of {REPEATS} processes (lowest … highest)")
    for key in runs[0]:
        values = [run[key] for run in runs]
        print(
            f"  {key:<18} {statistics.median(values):9.3f} ({min(values):.3f} … {max(values):.3f})"
        )


if __name__ == "__main__":
    main()
