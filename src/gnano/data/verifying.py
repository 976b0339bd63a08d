"""Checks that every byte of a prepared folder is what was written."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gnano.data.corpus import TokenizedCorpus
from gnano.data.shards import ShardInfo, open_offsets, open_tokens
from gnano.utils.host import available_cores

VerifyProgress = Callable[[int, int, int], None]  # shards checked, shards in all, bytes read

CHUNK_TOKENS = 2**24  # tokens looked at together


def verify_data(folder: Path, progress: VerifyProgress = lambda *_: None) -> list[str]:
    """Hold every shard against its checksums and its documents; one sentence for each problem.

    Covers what is finished where the folder is still being prepared. Raises ValueError or
    FileNotFoundError if manifest or tokenizer are not in order.
    """
    corpus = TokenizedCorpus(folder)
    vocabulary = corpus.manifest.tokenizer
    assert corpus.tokenizer.fingerprint == vocabulary["fingerprint"]
    shards = [
        (folder / name, shard)
        for name, source in corpus.manifest.sources.items()
        for shard in [*source.shards, *source.heldout]
    ]
    problems = []
    size = 0
    # threads: hashing lets go of the interpreter's lock
    with ThreadPoolExecutor(available_cores()) as pool:
        limits = vocabulary["vocab_size"], vocabulary["end_of_text"]
        checks = pool.map(lambda job: list(_check_shard(job[0], job[1], *limits)), shards)
        for number, ((_, shard), found) in enumerate(zip(shards, checks, strict=True), 1):
            problems += found
            size += 2 * shard.tokens + 4 * shard.documents
            progress(number, len(shards), size)
    return problems


def _check_shard(folder: Path, shard: ShardInfo, vocab_size: int, end: int) -> Iterator[str]:
    try:
        tokens, starts = open_tokens(folder, shard), open_offsets(folder, shard)
    except ValueError as error:
        yield str(error)
        return
    ends = 0
    for first in range(0, len(tokens), CHUNK_TOKENS):
        part = tokens[first : first + CHUNK_TOKENS]
        ends += int(np.count_nonzero(part == end))
        if part.max() >= vocab_size:
            yield f"{folder / shard.name}.tokens holds ids past the vocabulary's {vocab_size:,}."
            return
    if ends != len(starts) or not (tokens[starts] == end).all():
        yield f"{folder / shard.name}.docs does not name where the documents start."
