"""Inspection of prepared data: the documents of a training sample, and checksums of all shards."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.sampler import SampleIndex
from gnano.data.shards import ShardInfo, Tokens, open_shard_file
from gnano.utils.formatting import plural
from gnano.utils.platform_support import available_cores

CHUNK_TOKENS = 2**24  # tokens checked together


class DocumentSpan(NamedTuple):
    """A part of one document."""

    document_index: int  # in the shard
    document_count: int  # of the shard
    offset: int  # of the first token here in the document; token 0 is its end-of-text
    document_tokens: int  # tokens of the complete document
    ids: Tokens


def inspect_sample(dataset: PackedDataset, index: SampleIndex) -> list[DocumentSpan]:
    """Return the documents of a sample."""
    corpus = dataset.corpus
    tokens = corpus.shard_tokens(index.source, index.shard)
    starts = corpus.document_offsets(index.source, index.shard).astype(np.int64)
    documents = []
    for first, last in dataset.row_spans(index):
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
    return documents


def describe_sample(dataset: PackedDataset, sample: int) -> str:
    """Return where a training sample is stored, and its text with a line before each document.

    Raises ValueError if the sample is not prepared yet.
    """
    if sample < 0:
        raise ValueError(f"Samples are counted from 0; {sample} does not exist.")
    if missing := dataset.missing([sample]):
        raise ValueError(f"Sample {sample:,} is not prepared yet: {missing}.")
    index, corpus = dataset.sampler.locate(sample), dataset.corpus
    documents = inspect_sample(dataset, index)
    rows = dataset.rows_per_shard[index.source][index.shard]
    tokens = sum(last - first for first, last in dataset.row_spans(index))
    lines = [
        f"sample {sample:,}: source {corpus.source_names[index.source]}, epoch {index.epoch}, "
        f"shard {corpus.shard_infos[index.source][index.shard].name}, row {index.row:,} of "
        f"{rows:,}; {tokens:,} tokens, {plural(len(documents), 'document')}"
    ]
    for piece in documents:
        end = piece.offset + len(piece.ids)
        is_complete = (piece.offset, end) == (0, piece.document_tokens)
        span = "all" if is_complete else f"{piece.offset:,}–{end:,}"
        lines.append(
            f"── document {piece.document_index:,} of {piece.document_count:,}, tokens {span} "
            f"of {piece.document_tokens:,} ".ljust(72, "─")
        )
        lines.append(corpus.tokenizer.decode(piece.ids.tolist()))
    return "\n".join(lines)


def verify_data(
    folder: Path, progress: Callable[[int, int, int], None] = lambda *_: None
) -> list[str]:
    """Check every shard's checksums and documents; return one sentence for each problem.

    `progress` receives the shards checked, all shards, and the bytes read. While the folder is
    being prepared, the finished shards are checked. Raises ValueError or FileNotFoundError if the
    manifest or the tokenizer is damaged.
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
            size += shard.id_bytes * shard.tokens + 4 * shard.documents
            progress(number, len(shards), size)
    return problems


def _check_shard(
    folder: Path, shard: ShardInfo, vocab_size: int, end_of_text: int
) -> Iterator[str]:
    try:
        tokens = open_shard_file(folder, shard, "tokens")
        starts = open_shard_file(folder, shard, "docs")
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
