"""Inspection of prepared data: the documents of a training sample, and checksums of all shards."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.shards import ShardInfo, Tokens, open_offsets, open_tokens
from gnano.utils.platform_support import available_cores

CHUNK_TOKENS = 2**24  # tokens checked together
VerifyProgress = Callable[[int, int, int], None]  # shards checked, all shards, bytes read


class DocumentSpan(NamedTuple):
    """A part of one document."""

    document_index: int  # in the shard
    document_count: int  # of the shard
    offset: int  # of the first token here in the document; token 0 is its end-of-text
    document_tokens: int  # tokens of the complete document
    ids: Tokens


class SampleDetails(NamedTuple):
    """A training sample: where it is stored, and the documents in it."""

    number: int
    source: str
    epoch: int
    shard: str
    row: int
    row_count: int  # of the shard
    tokens: int
    documents: list[DocumentSpan]


def inspect_sample(dataset: PackedDataset, sample: int) -> SampleDetails:
    """Return the details of a sample; raise ValueError if it is not prepared yet."""
    if sample < 0:
        raise ValueError(f"Samples are counted from 0; {sample} does not exist.")
    if missing := dataset.missing([sample]):
        raise ValueError(f"Sample {sample:,} is not prepared yet: {missing}.")
    index = dataset.sampler.locate(sample)
    corpus = dataset.corpus
    shard = corpus.shard_infos(index.source)[index.shard]
    tokens = corpus.shard_tokens(index.source, index.shard)
    starts = corpus.document_offsets(index.source, index.shard).astype(np.int64)
    row_spans = dataset.row_spans(index)
    documents = []
    for first, last in row_spans:
        # a span may hold several documents, and start or end inside one
        cuts = [first, *starts[(starts > first) & (starts < last)].tolist(), last]
        for begin, end in pairwise(cuts):
            if first < begin == end - 1 and begin in starts:
                continue  # only the end-of-text that the previous document predicts
            document = int(np.searchsorted(starts, begin, side="right")) - 1
            stop = starts[document + 1] if document + 1 < len(starts) else len(tokens)
            length = int(stop - starts[document])
            offset = int(begin - starts[document])
            documents.append(DocumentSpan(document, len(starts), offset, length, tokens[begin:end]))
    return SampleDetails(
        number=sample,
        source=corpus.source_names[index.source],
        epoch=index.epoch,
        shard=shard.name,
        row=index.row,
        row_count=dataset.rows_per_shard[index.source][index.shard],
        tokens=sum(last - first for first, last in row_spans),
        documents=documents,
    )


def verify_data(folder: Path, progress: VerifyProgress = lambda *_: None) -> list[str]:
    """Check every shard's checksums and documents; return one sentence for each problem.

    While the folder is being prepared, the finished shards are checked. Raises ValueError or
    FileNotFoundError if the manifest or the tokenizer is damaged.
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
    # threads suffice: hashing releases the interpreter's lock
    with ThreadPoolExecutor(available_cores()) as pool:
        limits = vocabulary["vocab_size"], vocabulary["end_of_text"]
        checks = pool.map(lambda job: list(_check_shard(job[0], job[1], *limits)), shards)
        for number, ((_, shard), found) in enumerate(zip(shards, checks, strict=True), 1):
            problems += found
            size += 2 * shard.tokens + 4 * shard.documents
            progress(number, len(shards), size)
    return problems


def _check_shard(
    folder: Path, shard: ShardInfo, vocab_size: int, end_of_text: int
) -> Iterator[str]:
    try:
        tokens, starts = open_tokens(folder, shard), open_offsets(folder, shard)
    except ValueError as error:
        yield str(error)
        return
    ends = 0
    for first in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens[first : first + CHUNK_TOKENS]
        ends += int(np.count_nonzero(chunk == end_of_text))
        if chunk.max() >= vocab_size:
            yield f"{folder / shard.name}.tokens holds ids of {vocab_size:,} or more."
            return
    if ends != len(starts) or not (tokens[starts] == end_of_text).all():
        yield f"{folder / shard.name}.docs does not match where the documents start."
