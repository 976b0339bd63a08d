"""Memorization: the longest span of a model's text that is also in its training shards.

A span begins and ends anywhere, within one document. Token ids are compared: the same words split
into other tokens are not the same span.

    samples   all windows of 8 tokens ─▶ Windows ◀─ all windows of a shard
                                            │
    shard     . . . . ■ ■ ■ ■ ■ . . . ■ ■ . . .      windows that some sample has, in runs

A run of 5 windows may be a span of 12 tokens, or pieces of several samples. Only those windows of
it are followed that may begin a span longer than their sample's longest so far, by a hash of so
many tokens. Soon there are few of them: what any two texts have in common has been found.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.rolling_hash import HashSet, SpanHasher, WindowIndex
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.contamination import ShardRef, format_search_progress, list_shards

MIN_SPAN_TOKENS = 8  # tokens: shorter spans are not looked for
CHUNK_TOKENS = 2**17  # tokens of a shard compared together
END_SENTINEL = np.uint64(2**40)  # what follows the last token of a part: no sample has it
MAX_OUTDATED_SHARE = 0.05  # share of the samples whose goals may be too short
# tells equal goals of two samples apart: odd, its bits in no order
SAMPLE_HASH_FACTOR = 0xD1B54A32D192ED03


UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class CopiedSpan:
    """The longest span of a sample that the training shards contain."""

    sample: int
    tokens: int
    text: str
    source: str
    shard: str  # file name without its ending
    position: int  # of its first token in the shard


def find_longest_copies(
    corpus: TokenizedCorpus,
    samples: Sequence[Sequence[int] | str],
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[CopiedSpan | None]:
    """Return the longest copied span of each sample; None where none has 8 tokens.

    Samples are ids of the corpus's tokenizer, or text. Covers what is finished where the folder
    is still being prepared; held-out documents are not searched. Raises ValueError or OSError
    for a damaged shard.
    """
    tokenizer = corpus.tokenizer
    ids = [tokenizer.encode(each) if isinstance(each, str) else each for each in samples]
    search = CopySearch(ids, tokenizer.end_of_text_id)
    shards = list_shards(corpus)
    total = sum(info.tokens for info in shards.values())
    done, began = 0, time.monotonic()
    for shard in shards if len(search) else ():
        # opened for this shard alone: a mapped file counts as memory of whoever mapped it
        tokens = TokenizedCorpus(corpus.folder, corpus.verify_checksums).shard_tokens(*shard)
        for first in range(0, len(tokens), CHUNK_TOKENS):
            # as much of the next part as a span that begins in this one may reach
            part = tokens[first : first + CHUNK_TOKENS + search.max_span - 1]
            search.scan(part, shard, first)
            done += min(CHUNK_TOKENS, len(part))
            longest = f"longest copy {search.longest.max()} tokens"
            on_progress(format_search_progress(done, total, began, longest))
    return [
        _describe_span(corpus, sample, search.found.get(sample)) for sample in range(len(samples))
    ]


class SpanLocation(NamedTuple):
    shard: ShardRef
    position: int
    tokens: int


class CopySearch:
    """The longest span of each sample in what was read so far.

    Each window of a sample has a goal: the window and what follows it, one token more than the
    sample's longest span. Where a goal is met, the sample has a longer span, and longer goals.
    """

    def __init__(self, samples: Sequence[Sequence[int]], end_of_text: int) -> None:
        # ids from 1; 0 after each sample and for end-of-text, over which no span goes
        rows = [np.append(np.asarray(ids, np.int64) + 1, 0) for ids in samples]
        row = np.concatenate([*rows, np.zeros(1, np.int64)])
        row[row == end_of_text + 1] = 0
        zeros = np.flatnonzero(row == 0)
        self.row = row.astype(np.uint64)
        self.stretches = SpanHasher(self.row)
        self._windows = WindowIndex(self.row, MIN_SPAN_TOKENS)
        self.starts = self._windows.starts
        self.max_lengths = (
            zeros[np.searchsorted(zeros, self.starts)] - self.starts
        )  # up to the next 0
        ends = np.cumsum([len(each) for each in rows])
        self.samples = np.searchsorted(ends, self.starts, side="right")
        self.max_span = int(
            self.max_lengths.max(initial=MIN_SPAN_TOKENS)
        )  # tokens of the longest span possible
        self.longest = np.zeros(len(samples), np.int64)  # tokens, by sample
        self.found: dict[int, SpanLocation] = {}
        self._patterns, self._outdated = PatternIndex(self, range(len(samples))), set[int]()

    def __len__(self) -> int:
        """Return the number of different windows."""
        return len(self._windows)

    def scan(self, ids: NDArray[Any], shard: ShardRef, first: int) -> None:
        """Compare with a part of a shard that begins at position `first`."""
        row = np.append(ids.astype(np.uint64) + np.uint64(1), END_SENTINEL)
        places, _ = self._windows.find(row)
        if not len(places):
            return
        lasts = np.append(np.flatnonzero(np.diff(places) != 1), len(places) - 1)
        in_run = np.diff(lasts, prepend=-1)
        rooms = (
            np.repeat(places[lasts], in_run) - places + MIN_SPAN_TOKENS
        )  # up to the end of the run
        stretches, goals = SpanHasher(row), self._patterns
        while improved := self._extend_matches(
            row, *goals.find(stretches, places, rooms), shard, first
        ):
            goals = PatternIndex(self, improved)
            self._outdated.update(improved)
        # goals that are too short cost little, new ones for all samples cost more
        if len(self._outdated) > len(self.longest) * MAX_OUTDATED_SHARE:
            self._patterns, self._outdated = PatternIndex(self, range(len(self.longest))), set()

    def _extend_matches(
        self, row: UInt64Array, places: Int64Array, windows: Int64Array, shard: ShardRef, first: int
    ) -> list[int]:
        """Follow the goals that are met to their ends; return the samples with a longer span."""
        tokens = np.zeros(len(places), np.int64)
        active = np.arange(len(places))
        while len(active):
            ahead = tokens[active]
            same = row[places[active] + ahead] == self.row[self.starts[windows[active]] + ahead]
            active = active[same]
            tokens[active] += 1
        samples = self.samples[windows]
        order = np.lexsort((places, -tokens, samples))  # a sample's longest first
        improved = []
        for i in order[np.unique(samples[order], return_index=True)[1]].tolist():
            sample, length = int(samples[i]), int(tokens[i])
            if length > self.longest[sample]:
                self.longest[sample] = length
                self.found[sample] = SpanLocation(shard, first + int(places[i]), length)
                improved.append(sample)
        return improved


class PatternIndex:
    """The present goals of all windows of some samples."""

    def __init__(self, search: CopySearch, samples: Collection[int]) -> None:
        chosen = np.zeros(len(search.longest), bool)
        chosen[list(samples)] = True
        sizes = np.maximum(search.longest[search.samples] + 1, MIN_SPAN_TOKENS)
        windows = np.flatnonzero(chosen[search.samples] & (sizes <= search.max_lengths))
        starts, sizes = search.starts[windows], sizes[windows]
        hashes = search.stretches.hash(starts, starts + sizes)
        # a sample that repeats itself has the same goal many times
        apart = hashes + search.samples[windows].astype(np.uint64) * np.uint64(SAMPLE_HASH_FACTOR)
        once = np.unique(apart, return_index=True)[1]
        once = once[np.argsort(hashes[once], kind="stable")]
        self._windows, self._sizes = windows[once], np.unique(sizes)
        different, firsts = np.unique(hashes[once], return_index=True)
        self._hashes, self._firsts = HashSet(different), np.append(firsts, len(once))

    def find(
        self, stretches: SpanHasher, places: Int64Array, max_lengths: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """Return the places in a row where goals are met, and the numbers of their windows."""
        at, windows = [places[:0]], [places[:0]]
        for size in self._sizes.tolist():
            enough = max_lengths >= size
            places, max_lengths = places[enough], max_lengths[enough]
            met, which = self._hashes.find(stretches.hash(places, places + size))
            firsts, counts = self._firsts[which], self._firsts[which + 1] - self._firsts[which]
            each = np.repeat(firsts - np.cumsum(counts) + counts, counts)
            windows.append(self._windows[each + np.arange(len(each))])
            at.append(np.repeat(places[met], counts))
        return np.concatenate(at), np.concatenate(windows)


def _describe_span(
    corpus: TokenizedCorpus, sample: int, span: SpanLocation | None
) -> CopiedSpan | None:
    if span is None:
        return None
    (source, number), position, tokens = span
    ids = corpus.shard_tokens(source, number)[position : position + tokens]
    return CopiedSpan(
        sample,
        tokens,
        corpus.tokenizer.decode(ids.tolist()),
        corpus.source_names[source],
        corpus.shard_infos(source)[number].name,
        position,
    )
