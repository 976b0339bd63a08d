"""Shows what a training sample is made of: where it is stored and its documents."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gnano.data.batches import Batches
from gnano.data.shards import Tokens


class Piece(NamedTuple):
    """A part of one document."""

    document: int  # its number in the shard
    documents: int  # how many the shard has
    begin: int  # which of its tokens is the first here; token 0 is its end-of-text
    length: int  # tokens of the whole document
    ids: Tokens


class Sample(NamedTuple):
    number: int
    source: str
    epoch: int
    shard: str
    row: int
    rows: int  # of the shard
    tokens: int
    pieces: list[Piece]


def look(batches: Batches, i: int) -> Sample:
    """Sample i as `batches` gives it. Raises ValueError if it is not prepared yet."""
    if i < 0:
        raise ValueError(f"Samples are counted from 0; {i} is none.")
    if missing := batches.lacking([i]):
        raise ValueError(f"Sample {i:,} is not there: {missing}.")
    place = batches.order.locate(i)
    corpus = batches.corpus
    shard = corpus.shards(place.source)[place.shard]
    tokens = corpus.tokens(place.source, place.shard)
    starts = corpus.starts(place.source, place.shard).astype(np.int64)
    pieces = []
    for first, last in batches.ranges(place):
        # a range may hold several documents, and begin or end inside one
        cuts = [first, *starts[(starts > first) & (starts < last)].tolist(), last]
        for begin, end in pairwise(cuts):
            if first < begin == end - 1 and begin in starts:
                continue  # the end of the document before, to be predicted, not a beginning
            document = int(np.searchsorted(starts, begin, side="right")) - 1
            stop = starts[document + 1] if document + 1 < len(starts) else len(tokens)
            length = int(stop - starts[document])
            offset = int(begin - starts[document])
            pieces.append(Piece(document, len(starts), offset, length, tokens[begin:end]))
    name, rows = corpus.names[place.source], batches.rows[place.source][place.shard]
    count = sum(last - first for first, last in batches.ranges(place))
    return Sample(i, name, place.epoch, shard.name, place.row, rows, count, pieces)
