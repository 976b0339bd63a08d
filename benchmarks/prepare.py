"""Tokenization speed of preparation compared with tiktoken, and its memory.

    python benchmarks/prepare.py [--workers 2] [--megabytes 64] FILES …

FILES are Parquet files with a column `text` (or --column). They are repeated to give the requested
megabytes, each copy's documents with a first line of their own, so that none is a duplicate. Two
speeds are measured in turns: bare `tiktoken.encode_ordinary` over the same documents in memory, in
as many processes; and the complete `gnano prepare`, from Parquet to finished shards. Then the ids
are compared. With --memory, the peak resident memory of `prepare` and of each worker is measured
for the text once and for ten times as much.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import read_texts
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

REPEATS = 3


def write_corpus(
    files: list[str], column: str, megabytes: float, parts: int, folder: Path
) -> list[Path]:
    """Write Parquet files of equal size with `megabytes` of text in total."""
    texts = [text for file in files for text in read_texts(Path(file), column)]
    size = sum(len(text.encode()) for text in texts)
    copies = max(1, round(megabytes * 1e6 / size))
    documents = [f"{copy} {text}" for copy in range(copies) for text in texts]
    folder.mkdir()
    paths = []
    for part in range(parts):
        paths.append(folder / f"{part:03}.parquet")
        rows = pa.table({"text": documents[part::parts]})
        pq.write_table(rows, paths[-1], row_group_size=1_000)
    return paths


def bare(path: Path, ready: "threading.Barrier", out: "object") -> None:
    """Read the documents, wait for the other processes, then only tokenize."""
    encoding = load_gpt2_tokenizer()._tiktoken
    assert encoding is not None
    texts = list(read_texts(path, "text"))
    ready.wait()
    started = time.perf_counter()
    count = sum(len(encoding.encode_ordinary(text)) for text in texts)
    out.put((count, time.perf_counter() - started))  # type: ignore[attr-defined]


def bare_speed(paths: list[Path], workers: int) -> float:
    """Return the tokens per second of all processes, each with its own files."""
    context = get_context("spawn")
    speed = 0.0
    ready, out = context.Barrier(workers), context.Queue()
    processes = [context.Process(target=bare, args=(path, ready, out)) for path in paths[:workers]]
    for process in processes:
        process.start()
    for _ in processes:
        count, seconds = out.get()
        speed += count / seconds
    for process in processes:
        process.join()
    return speed


def config(paths: list[Path], folder: Path, workers: int) -> DataConfig:
    source = SourceConfig(files=tuple(map(str, paths)))
    return DataConfig(folder=str(folder), workers=workers, sources={"text": source})


def prepared_speed(paths: list[Path], folder: Path, workers: int) -> float:
    """Return the tokens per second of the complete preparation, including held-out ones."""
    started = time.perf_counter()
    manifest = prepare(config(paths, folder, workers))
    source = manifest.sources["text"]
    return (source.tokens + source.heldout_tokens) / (time.perf_counter() - started)


def same_ids(paths: list[Path], folder: Path) -> int:
    """Check that every document's ids equal tiktoken's; return the number of documents."""
    encoding = load_gpt2_tokenizer()._tiktoken
    assert encoding is not None
    corpus = TokenizedCorpus(folder)
    ids = set()
    shards = [corpus.shard_tokens(0, n) for n in range(len(corpus.shard_infos[0]))] + [
        corpus.heldout_tokens(0)
    ]
    for tokens in shards:
        starts = np.flatnonzero(tokens == corpus.tokenizer.end_of_text_id)
        ids |= {part[1:].tobytes() for part in np.split(tokens, starts)[1:]}
    expected = {
        np.array(encoding.encode_ordinary(text), np.uint16).tobytes()
        for path in paths
        for text in read_texts(path, "text")
    }
    assert ids == expected, "the ids differ"
    return len(ids)


def peaks(paths: list[Path], folder: Path, workers: int) -> tuple[float, list[float]]:
    """Return the peak resident MB of `prepare` in a new process, and of its workers."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from prepare import *;"
        "prepare(config([Path(p) for p in sys.argv[4:]], Path(sys.argv[2]), int(sys.argv[3])))"
    )
    here = str(Path(__file__).parent)
    main = subprocess.Popen(
        [sys.executable, "-c", code, here, str(folder), str(workers), *map(str, paths)]
    )
    highest: dict[int, float] = {}
    while main.poll() is None:
        children = Path(f"/proc/{main.pid}/task/{main.pid}/children")
        try:
            family = [main.pid, *map(int, children.read_text().split())]
        except OSError:
            break
        for pid in family:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            if "VmHWM:" in status:
                highest[pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        time.sleep(0.05)
    assert main.wait() == 0
    return highest.pop(main.pid), sorted(highest.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--column", default="text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument(
        "--memory", action="store_true", help="also measure memory, at 1 × and 10 ×"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, parts = Path(name), 4 * args.workers
        paths = write_corpus(args.files, args.column, args.megabytes, parts, folder / "text")
        print(f"{args.megabytes:g} MB of text in {parts} files, {args.workers} workers")
        for repeat in range(REPEATS):
            bare = bare_speed(paths, args.workers)
            prepared = prepared_speed(paths, folder / f"{repeat}", args.workers)
            print(
                f"  bare tiktoken {bare / 1e6:6.2f} M tokens/s · prepare {prepared / 1e6:6.2f} M"
                f" · {prepared / bare:.2f} ×",
                flush=True,
            )
        print(f"  {same_ids(paths, folder / '0'):,} documents with the same ids as tiktoken's")
        if args.memory:
            for factor in (1, 10):
                size = factor * args.megabytes
                paths = write_corpus(
                    args.files, args.column, size, parts * factor, folder / f"text{factor}"
                )
                main_mb, workers_mb = peaks(paths, folder / f"peak{factor}", args.workers)
                each = ", ".join(f"{mb:.0f}" for mb in workers_mb)
                print(f"  {size:g} MB: prepare {main_mb:.0f} MB resident, workers {each} MB")


if __name__ == "__main__":
    main()
