"""How fast are training shards searched: for evaluation items, and for what samples copied?

    python benchmarks/overlap.py data/demo evals/*.jsonl

Items by runs of 13 words, against a Python set of such runs over the same texts; one process.
Samples are pieces of held-out documents; how much of them stands in the training shards is told
too, as what any two texts of a kind have in common.
"""

import argparse
import random
import time
from pathlib import Path
from statistics import median

from gnano.data.ngram_overlap import NGRAM_WORDS, WORD_PATTERN
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.contamination import find_contamination
from gnano.evals.eval_tasks import load_tasks
from gnano.evals.memorization import find_longest_copies

PIECE = 256  # tokens
PEER = 2_000_000  # characters of each source that the peer reads


def items_of(files: list[str]) -> list[str]:
    return [item.full_text for sheet in load_tasks([], files) for item in sheet.items]


def runs(text: str) -> set[tuple[str, ...]]:
    words = WORD_PATTERN.findall(text.lower())
    return set(zip(*(words[at:] for at in range(NGRAM_WORDS)), strict=False))


def contamination(corpus: TokenizedCorpus, items: list[str]) -> None:
    size = sum(
        shard.bytes for s in range(len(corpus.source_names)) for shard in corpus.shard_infos(s)
    )
    began = time.perf_counter()
    found = find_contamination(corpus, items, num_workers=1)
    ours = size / (time.perf_counter() - began) / 1e6
    known = set().union(*map(runs, items))
    read, took = 0, 0.0
    for source in range(len(corpus.source_names)):
        text = corpus.tokenizer.decode(corpus.shard_tokens(source, 0)[: PEER // 4].tolist())
        began = time.perf_counter()
        _ = known & runs(text)
        took += time.perf_counter() - began
        read += len(text.encode())
    peer = read / took / 1e6
    print(
        f"{len(items):,} items, {len(known):,} runs: {ours:.1f} MB of text/s, a Python set "
        f"{peer:.1f} ({ours / peer:.1f} ×); {len(found.contaminated_items):,} items found"
    )


def copying(corpus: TokenizedCorpus, count: int) -> None:
    draw = random.Random(0)
    held = [
        part
        for s in range(len(corpus.source_names))
        if len(part := corpus.heldout_tokens(s)) > PIECE
    ]
    samples = []
    for _ in range(count):
        part = held[draw.randrange(len(held))]
        start = draw.randrange(len(part) - PIECE)
        samples.append(part[start : start + PIECE].tolist())
    tokens = sum(
        shard.tokens for s in range(len(corpus.source_names)) for shard in corpus.shard_infos(s)
    )
    began = time.perf_counter()
    spans = find_longest_copies(corpus, samples)
    took = time.perf_counter() - began
    lengths = [span.tokens for span in spans if span]
    middle, longest = median(lengths or [0]), max(lengths or [0])
    print(
        f"{count:,} samples: {tokens / took / 1e6:.1f} M tokens/s; {len(lengths):,} share 8 tokens "
        f"or more, the median of those {middle:.0f}, the longest {longest}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("items", nargs="+", help="files of items, named after their tasks")
    asked = parser.parse_args()
    corpus = TokenizedCorpus(asked.data)
    contamination(corpus, items_of(asked.items))
    for count in (10, 100, 1_000):
        copying(corpus, count)


if __name__ == "__main__":
    main()
