"""Shows what a training sample is made of: where it is stored and its documents."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gnano.data.batches import PackedDataset
from gnano.data.shards import Tokens


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
