"""Speed of searching training shards for evaluation items and for copied samples.

    python benchmarks/overlap.py data/demo evals/*.jsonl

Items are searched by runs of 13 words, compared with a Python set of such runs over the same texts,
in one process. Samples are pieces of held-out documents; how much of them the training shards
contain is reported as the overlap that any two texts of a kind have.
"""

import argparse
import random
import time
from pathlib import Path
from statistics import median

from gnano.data.ngram_overlap import NGRAM_WORDS, WORD_PATTERN
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals.contamination import find_contamination
from gnano.evals.eval_tasks import load_tasks
from gnano.evals.memorization import find_longest_copies

SAMPLE_TOKENS = 256
SET_CHARS = 2_000_000  # characters of each source searched with the Python set


def load_items(files: list[str]) -> list[str]:
    return [item.full_text for task in load_tasks([], files) for item in task.items]


def word_runs(text: str) -> set[tuple[str, ...]]:
    words = WORD_PATTERN.findall(text.lower())
    return set(zip(*(words[at:] for at in range(NGRAM_WORDS)), strict=False))


def measure_contamination(corpus: TokenizedCorpus, items: list[str]) -> None:
    size = sum(
        shard.bytes for s in range(len(corpus.source_names)) for shard in corpus.shard_infos[s]
    )
    started_at = time.perf_counter()
    _, shared = find_contamination(corpus, items, num_workers=1)
    speed = size / (time.perf_counter() - started_at) / 1e6
    known = set().union(*map(word_runs, items))
    num_bytes, seconds = 0, 0.0
    for source in range(len(corpus.source_names)):
        text = corpus.tokenizer.decode(corpus.shard_tokens(source, 0)[: SET_CHARS // 4].tolist())
        started_at = time.perf_counter()
        _ = known & word_runs(text)
        seconds += time.perf_counter() - started_at
        num_bytes += len(text.encode())
    set_speed = num_bytes / seconds / 1e6
    print(
        f"{len(items):,} items, {len(known):,} runs: {speed:.1f} MB of text/s, a Python set "
        f"{set_speed:.1f} ({speed / set_speed:.1f} ×); "
        f"{len(shared):,} items found"
    )


def measure_copies(corpus: TokenizedCorpus, count: int) -> None:
    rng = random.Random(0)
    heldout = [
        part
        for s in range(len(corpus.source_names))
        if len(part := corpus.heldout_tokens(s)) > SAMPLE_TOKENS
    ]
    samples = []
    for _ in range(count):
        part = heldout[rng.randrange(len(heldout))]
        start = rng.randrange(len(part) - SAMPLE_TOKENS)
        samples.append(part[start : start + SAMPLE_TOKENS].tolist())
    tokens = sum(
        shard.tokens for s in range(len(corpus.source_names)) for shard in corpus.shard_infos[s]
    )
    started_at = time.perf_counter()
    spans = find_longest_copies(corpus, samples)
    took = time.perf_counter() - started_at
    lengths = [span.tokens for span in spans if span]
    middle, longest = median(lengths or [0]), max(lengths or [0])
    print(
        f"{count:,} samples: {tokens / took / 1e6:.1f} M tokens/s; {len(lengths):,} share 8 tokens "
        f"or more, their median {middle:.0f}, the longest {longest}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("items", nargs="+", help="files of items, named after their tasks")
    args = parser.parse_args()
    corpus = TokenizedCorpus(args.data)
    measure_contamination(corpus, load_items(args.items))
    for count in (10, 100, 1_000):
        measure_copies(corpus, count)


if __name__ == "__main__":
    main()
