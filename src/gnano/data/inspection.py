"""Shows what a training sample is made of: where it is stored and its documents.

Checks that every byte of a prepared folder is what was written.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gnano.data.packed_dataset import PackedDataset
from gnano.data.shards import ShardInfo, Tokens, open_offsets, open_tokens
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.utils.platform_support import available_cores


class DocumentSpan(NamedTuple):
    """A part of one document."""

    document_index: int  # its number in the shard
    document_count: int  # how many the shard has
    offset: int  # which of its tokens is the first here; token 0 is its end-of-text
    document_tokens: int  # tokens of the whole document
    ids: Tokens


class SampleDetails(NamedTuple):
    number: int
    source: str
    epoch: int
    shard: str
    row: int
    row_count: int  # of the shard
    tokens: int
    documents: list[DocumentSpan]


def inspect_sample(dataset: PackedDataset, sample: int) -> SampleDetails:
    """Sample i as `batches` gives it. Raises ValueError if it is not prepared yet."""
    if sample < 0:
        raise ValueError(f"Samples are counted from 0; {sample} is none.")
    if missing := dataset.missing([sample]):
        raise ValueError(f"Sample {sample:,} is not there: {missing}.")
    place = dataset.sampler.locate(sample)
    corpus = dataset.corpus
    shard = corpus.shard_infos(place.source)[place.shard]
    tokens = corpus.shard_tokens(place.source, place.shard)
    starts = corpus.document_offsets(place.source, place.shard).astype(np.int64)
    pieces = []
    for first, last in dataset.row_spans(place):
        # a range may hold several documents, and begin or end inside one
        cuts = [first, *starts[(starts > first) & (starts < last)].tolist(), last]
        for begin, end in pairwise(cuts):
            if first < begin == end - 1 and begin in starts:
                continue  # the end of the document before, to be predicted, not a beginning
            document = int(np.searchsorted(starts, begin, side="right")) - 1
            stop = starts[document + 1] if document + 1 < len(starts) else len(tokens)
            length = int(stop - starts[document])
            offset = int(begin - starts[document])
            pieces.append(DocumentSpan(document, len(starts), offset, length, tokens[begin:end]))
    name, rows = (
        corpus.source_names[place.source],
        dataset.rows_per_shard[place.source][place.shard],
    )
    count = sum(last - first for first, last in dataset.row_spans(place))
    return SampleDetails(sample, name, place.epoch, shard.name, place.row, rows, count, pieces)


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
