"""Memorization: the longest span of a generated text that the training shards also contain.

A span may begin and end anywhere within one document. Token ids are compared, so the same words
split into other tokens are not the same span.

    samples   all windows of 8 tokens ─▶ WindowIndex ◀─ all windows of a shard
                                              │
    shard     . . . . ■ ■ ■ ■ ■ . . . ■ ■ . . .        windows that occur in a sample, in runs

A run of 5 windows may be one span of 12 tokens, or pieces of several samples. A window of a run is
extended only if it may begin a span longer than its sample's longest so far, which a hash of that
many tokens decides. Soon few windows are left: the spans that any two texts share have been found.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnano.data.ngram_overlap import HashSet, IndexArray, SpanHasher, WindowIndex
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals.contamination import ShardRef, format_search_progress, list_shards

MIN_SPAN_TOKENS = 8  # shorter spans are ignored
CHUNK_TOKENS = 2**17  # tokens of a shard compared together
END_SENTINEL = np.uint64(2**40)  # follows the last token of a chunk; no sample contains it
MAX_OUTDATED_SHARE = 0.05  # share of the samples whose patterns may be too short
# separates equal patterns of different samples: an odd number with irregular bits
SAMPLE_HASH_FACTOR = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True)
class CopiedSpan:
    """The longest span of a sample that the training shards contain."""

    sample: int
    tokens: int
    text: str
    source: str
    shard: str  # file name without its suffix
    position: int  # of its first token in the shard


def find_longest_copies(
    corpus: TokenizedCorpus,
    samples: Sequence[Sequence[int] | str],
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[CopiedSpan | None]:
    """Return the longest copied span of each sample; None if it is shorter than 8 tokens.

    A sample is a text, or token ids of the corpus's tokenizer. Finished shards are searched if the
    folder is still being prepared; held-out documents are not. Raises ValueError or OSError for a
    damaged shard.
    """
    tokenizer = corpus.tokenizer
    ids = [tokenizer.encode(each) if isinstance(each, str) else each for each in samples]
    search = CopySearch(ids, tokenizer.end_of_text_id)
    shards = list_shards(corpus)
    total = sum(info.tokens for info in shards.values())
    done, started_at = 0, time.monotonic()
    for shard in shards if len(search.starts) else ():
        # opened for this shard only: a mapped file counts as memory of the process
        tokens = TokenizedCorpus(corpus.folder).shard_tokens(*shard)
        for first in range(0, len(tokens), CHUNK_TOKENS):
            # extended by as much of the next chunk as a span that begins in this one may reach
            chunk = tokens[first : first + CHUNK_TOKENS + search.max_span - 1]
            search.scan(chunk, shard, first)
            done += min(CHUNK_TOKENS, len(chunk))
            longest = f"longest copy {search.longest.max()} tokens"
            on_progress(format_search_progress(done, total, started_at, longest))
    copies: list[CopiedSpan | None] = [None] * len(samples)
    for sample, (shard, position, length) in search.found.items():
        span = corpus.shard_tokens(*shard)[position : position + length].tolist()
        text, source = tokenizer.decode(span), corpus.source_names[shard.source]
        copies[sample] = CopiedSpan(sample, length, text, source, shards[shard].name, position)
    return copies


class CopySearch:
    """The longest span of each sample in the chunks scanned so far.

    Each window of a sample has a pattern: the tokens from the window's start, one more than the
    sample's longest span. A match of a pattern gives the sample a longer span and longer patterns.
    """

    def __init__(self, samples: Sequence[Sequence[int]], end_of_text: int) -> None:
        # ids from 1; 0 marks the end of each sample and end-of-text, which no span crosses
        rows = [np.append(np.asarray(ids, np.int64) + 1, 0) for ids in samples]
        row = np.concatenate([*rows, np.zeros(1, np.int64)])
        row[row == end_of_text + 1] = 0
        zeros = np.flatnonzero(row == 0)
        self.row = row.astype(np.uint64)
        self.hasher = SpanHasher(self.row)
        self._windows = WindowIndex(self.row, MIN_SPAN_TOKENS)
        self.starts = self._windows.starts
        # tokens up to the next 0, by window
        self.max_lengths = zeros[np.searchsorted(zeros, self.starts)] - self.starts
        ends = np.cumsum([len(each) for each in rows])
        self.samples = np.searchsorted(ends, self.starts, side="right")  # by window
        self.max_span = int(self.max_lengths.max(initial=MIN_SPAN_TOKENS))  # tokens
        self.longest = np.zeros(len(samples), np.int64)  # tokens, by sample
        self.found: dict[int, tuple[ShardRef, int, int]] = {}  # shard, position, tokens
        self._patterns, self._outdated = PatternIndex(self, range(len(samples))), set[int]()

    def scan(self, ids: NDArray[Any], shard: ShardRef, first: int) -> None:
        """Search a chunk of a shard that begins at position `first`."""
        row = np.append(ids.astype(np.uint64) + np.uint64(1), END_SENTINEL)
        positions, _ = self._windows.find(row)
        if not len(positions):
            return
        lasts = np.append(np.flatnonzero(np.diff(positions) != 1), len(positions) - 1)
        run_lengths = np.diff(lasts, prepend=-1)
        # tokens up to the end of the run
        max_lengths = np.repeat(positions[lasts], run_lengths) - positions + MIN_SPAN_TOKENS
        hasher, patterns = SpanHasher(row), self._patterns
        while True:
            matched, windows = patterns.find(hasher, positions, max_lengths)
            lengths = np.zeros(len(matched), np.int64)
            active = np.arange(len(matched))
            while len(active):  # each match is extended to its end
                own = self.starts[windows[active]] + lengths[active]
                active = active[row[matched[active] + lengths[active]] == self.row[own]]
                lengths[active] += 1
            samples = self.samples[windows]
            order = np.lexsort((matched, -lengths, samples))  # each sample's longest first
            improved = []
            for i in order[np.unique(samples[order], return_index=True)[1]].tolist():
                sample, length = int(samples[i]), int(lengths[i])
                if length > self.longest[sample]:
                    self.longest[sample] = length
                    self.found[sample] = shard, first + int(matched[i]), length
                    improved.append(sample)
            if not improved:
                break
            patterns = PatternIndex(self, improved)
            self._outdated.update(improved)
        # patterns that are too short cost little, new ones for all samples cost more
        if len(self._outdated) > len(self.longest) * MAX_OUTDATED_SHARE:
            self._patterns, self._outdated = PatternIndex(self, range(len(self.longest))), set()


class PatternIndex:
    """The current patterns of all windows of some samples."""

    def __init__(self, search: CopySearch, samples: Collection[int]) -> None:
        chosen = np.zeros(len(search.longest), bool)
        chosen[list(samples)] = True
        sizes = np.maximum(search.longest[search.samples] + 1, MIN_SPAN_TOKENS)
        windows = np.flatnonzero(chosen[search.samples] & (sizes <= search.max_lengths))
        starts, sizes = search.starts[windows], sizes[windows]
        hashes = search.hasher.hash(starts, starts + sizes)
        # a sample that repeats itself has the same pattern many times
        keys = hashes + search.samples[windows].astype(np.uint64) * SAMPLE_HASH_FACTOR
        unique = np.unique(keys, return_index=True)[1]
        unique = unique[np.argsort(hashes[unique], kind="stable")]
        self._windows, self._sizes = windows[unique], np.unique(sizes)
        distinct, firsts = np.unique(hashes[unique], return_index=True)
        self._hashes, self._firsts = HashSet(distinct), np.append(firsts, len(unique))

    def find(
        self, hasher: SpanHasher, positions: IndexArray, max_lengths: IndexArray
    ) -> tuple[IndexArray, IndexArray]:
        """Return the positions in a row where patterns match, and the matching windows."""
        matched, windows = [positions[:0]], [positions[:0]]
        for size in self._sizes.tolist():
            fits = max_lengths >= size
            positions, max_lengths = positions[fits], max_lengths[fits]
            hits, hash_ids = self._hashes.find(hasher.hash(positions, positions + size))
            firsts = self._firsts[hash_ids]
            counts = self._firsts[hash_ids + 1] - firsts
            offsets = np.repeat(firsts - np.cumsum(counts) + counts, counts)
            windows.append(self._windows[offsets + np.arange(len(offsets))])
            matched.append(np.repeat(positions[hits], counts))
        return np.concatenate(matched), np.concatenate(windows)
