"""Batches of tensors from token shards: training samples by number, held-out rows in sequence.

A shard's tokens are cut into rows of T + 1 that overlap by one, so that every token but the first
is predicted exactly once; the last row is moved back to end with the shard, so that no token is
left over.

    tokens   0 1 2 3 4 5 6 7 8 9        T = 4
    row 0    0 1 2 3 4
    row 1            4 5 6 7 8
    row 2              5 6 7 8 9        (repeats 5 … 8; held-out evaluation ignores repeats)

With `packing` "best-fit", rows hold complete documents instead (see `gnano.data.packing`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gnano.data.packing import BestFitPacking, count_packing, fill_row
from gnano.data.sampler import BLOCK_SIZE, MixtureSampler, SampleIndex, ShardNotReady
from gnano.data.shards import Tokens
from gnano.data.tokenized_corpus import HeldoutRow, TokenizedCorpus

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = -100  # a target that does not count; PyTorch's default


class Batch(NamedTuple):
    """B rows of T tokens."""

    inputs_BT: "Tensor"  # int64
    targets_BT: "Tensor"  # int64: the token after each input; IGNORE_INDEX where none counts
    segments_BT: "Tensor | None"  # int32: the document's number; None: attention crosses documents

    def map_tensors(self, function: Callable[["Tensor"], "Tensor"]) -> "Batch":
        """Return a batch of the results of a function on each tensor."""
        segments_BT = None if self.segments_BT is None else function(self.segments_BT)
        return Batch(function(self.inputs_BT), function(self.targets_BT), segments_BT)

    def count_targets(self) -> "Tensor":
        """Return how many targets count, as a tensor on the batch's device."""
        return (self.targets_BT != IGNORE_INDEX).sum()

    @property
    def loss_fn(self) -> None:
        """None, for `GPT.loss`: the loss is the unweighted sum of the targets' nats."""


class PackingStats(NamedTuple):
    """The overhead of packing: padding, repeated and dropped tokens."""

    packing: str
    block_size: int  # T
    target_slots: int  # targets of all rows
    padding: int  # target slots that are empty or between two documents
    repeated_targets: int  # target slots whose token is predicted twice
    dropped_tokens: int  # tokens in no row

    def __str__(self) -> str:
        slots = max(self.target_slots, 1)
        return (
            f"rows of {self.block_size:,} tokens, {self.packing}: {self.padding / slots:.3%} "
            f"padding, {self.repeated_targets / slots:.3%} predicted twice, "
            f"{self.dropped_tokens:,} tokens left out"
        )


class PackedDataset:
    """Training samples by number; stateless, so any batch can be read at any time."""

    def __init__(
        self,
        corpus: TokenizedCorpus,
        weights: dict[str, float],
        seed: int,
        block_size: int,
        packing: Literal["stream", "best-fit"] = "stream",
        document_attention_mask: bool = False,
    ) -> None:
        self.corpus, self.block_size, self.seed = corpus, block_size, seed
        self.packing, self.document_attention_mask = packing, document_attention_mask
        self.weights = corpus.ordered_weights(weights)
        self.end_of_text: int = corpus.manifest.tokenizer["end_of_text"]
        # by source and shard
        self.rows_per_shard: list[list[int]] = [[] for _ in corpus.source_names]
        self._packing_by_source: dict[int, tuple[int, BestFitPacking]] = {}  # shard, its packing
        self._rebuild_sampler()

    def missing(self, samples: Sequence[int]) -> str | None:
        """Return what these samples wait for while the folder is being prepared, or None."""
        # another reader may have refreshed the corpus since this sampler was made
        if all(self.sampler.is_complete) or self._first_missing(samples) is None:
            return None
        self.corpus.refresh()
        self._rebuild_sampler()
        missing = self._first_missing(samples)
        if missing is None:
            return None
        name = self.corpus.source_names[missing.source]
        return (
            f"waiting for `gnano prepare`: shard {missing.shard + 1} of source {name!r} "
            f"in {self.corpus.folder}"
        )

    def read_sequence(self, sample: int) -> Tokens:
        """Return the T + 1 ids of a sample, with `packing` "stream"."""
        index = self.sampler.locate(sample)
        ((start, stop),) = self.row_spans(index)
        return self.corpus.shard_tokens(index.source, index.shard)[start:stop]

    def read_batch(self, samples: Sequence[int]) -> Batch:
        """Return the batch of these samples."""
        B, T = len(samples), self.block_size
        inputs, targets = np.empty((2, B, T), dtype=np.int64)
        segments = np.empty((B, T), dtype=np.int32)
        for b, i in enumerate(samples):
            if self.packing == "best-fit":
                index = self.sampler.locate(i)
                fill_row(
                    self.corpus.shard_tokens(index.source, index.shard),
                    self.row_spans(index),
                    inputs[b],
                    targets[b],
                    segments[b],
                    end_of_text=self.end_of_text,
                    ignore_index=IGNORE_INDEX,
                )
            else:
                ids = self.read_sequence(i)
                inputs[b], targets[b] = ids[:-1], ids[1:]
        if self.document_attention_mask and self.packing == "stream":
            np.cumsum(inputs == self.end_of_text, axis=1, out=segments)
        return Batch(
            _to_tensor(inputs),
            _to_tensor(targets),
            _to_tensor(segments) if self.document_attention_mask else None,
        )

    def row_spans(self, index: SampleIndex) -> list[tuple[int, int]]:
        """Return the spans [start, stop) of its shard's tokens that make up a row."""
        if self.packing == "best-fit":
            shard, packing = self._packing_by_source.get(index.source, (-1, None))
            if packing is None or shard != index.shard:  # one packing per source is cached
                packing = BestFitPacking(*self._packing_args(index.source, index.shard))
                self._packing_by_source[index.source] = index.shard, packing
            return packing.row_spans(index.row)
        tokens = self.corpus.shard_infos(index.source)[index.shard].tokens
        start = min(index.row * self.block_size, tokens - self.block_size - 1)
        return [(start, start + self.block_size + 1)]

    def packing_stats(self) -> PackingStats:
        """Return the overhead in all prepared shards; reads only the documents' starts."""
        slots = padding = repeated = dropped = 0
        for source, rows in enumerate(self.rows_per_shard):
            for shard, count in enumerate(rows):
                tokens = self.corpus.shard_infos(source)[shard].tokens
                slots += count * self.block_size
                if self.packing == "best-fit":
                    counts = count_packing(*self._packing_args(source, shard))
                    padding += counts.boundary_slots + counts.padding
                    dropped += counts.dropped_documents
                elif count:
                    repeated += count * self.block_size - (tokens - 1)
                else:
                    dropped += tokens
        return PackingStats(self.packing, self.block_size, slots, padding, repeated, dropped)

    def _rebuild_sampler(self) -> None:
        """Order the samples of all prepared shards."""
        complete = []
        for source, name in enumerate(self.corpus.source_names):
            rows = self.rows_per_shard[source]
            for shard in range(len(rows), len(self.corpus.shard_infos(source))):
                if self.packing == "best-fit":
                    rows.append(count_packing(*self._packing_args(source, shard)).rows)
                else:
                    tokens = self.corpus.shard_infos(source)[shard].tokens
                    rows.append(
                        -(-(tokens - 1) // self.block_size) if tokens > self.block_size else 0
                    )
            complete.append(self.corpus.manifest.sources[name].complete)
            share = self.weights[source]
            if share and complete[-1] and not sum(rows):
                raise ValueError(
                    f"Source {name!r} of {self.corpus.folder} has fewer than "
                    f"{self.block_size + 1:,} tokens, not enough for one sequence of the model's "
                    f"context {self.block_size:,} (model.block_size)."
                )
            if share and share / sum(self.weights) * BLOCK_SIZE < 1:
                raise ValueError(
                    f"Source {name!r} has {share / sum(self.weights):.2%} of the weight, and would "
                    f"never be sampled: give it at least 1 in {BLOCK_SIZE:,}, or 0."
                )
        self.sampler = MixtureSampler(self.rows_per_shard, self.weights, self.seed, complete)

    def _packing_args(self, source: int, shard: int) -> tuple[Any, int, int]:
        """Return the arguments of best-fit packing: document starts, token count, T."""
        tokens = self.corpus.shard_infos(source)[shard].tokens
        return self.corpus.document_offsets(source, shard), tokens, self.block_size

    def _first_missing(self, samples: Sequence[int]) -> ShardNotReady | None:
        for i in samples:
            try:
                self.sampler.locate(i)
            except ShardNotReady as missing:
                return missing
        return None


def iter_heldout_batches(
    rows: Sequence[HeldoutRow], block_size: int, batch_size: int
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Yield inputs and targets [B, T], int64; repeated and padding targets are IGNORE_INDEX."""
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        inputs = np.zeros((len(batch), block_size), dtype=np.int64)
        targets = np.full((len(batch), block_size), IGNORE_INDEX, dtype=np.int64)
        for b, (ids, new_targets) in enumerate(batch):
            n = len(ids) - 1
            inputs[b, :n] = ids[:-1]
            targets[b, n - new_targets : n] = ids[len(ids) - new_targets :]
        yield _to_tensor(inputs), _to_tensor(targets)


def _to_tensor(array: Any) -> "Tensor":
    import torch

    return torch.from_numpy(array)
