"""A prepared folder, or one in preparation, and batches of tensors from its token shards.

`TokenizedCorpus` reads the folder; `PackedDataset` returns training samples by number.

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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gnano.data.manifest import Manifest
from gnano.data.packing import BestFitPacking, count_packing, fill_row
from gnano.data.sampler import BLOCK_SIZE, MixtureSampler, SampleIndex, ShardNotReady
from gnano.data.shards import Offsets, Tokens, open_shard_file

if TYPE_CHECKING:
    from torch import Tensor

    from gnano.tokenizer.bpe import Tokenizer

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


class HeldoutRow(NamedTuple):
    """A row of held-out tokens."""

    ids: Tokens  # [T + 1], or fewer if all held-out tokens of the source are
    new_targets: int  # how many of the last targets are in no earlier row


class TokenizedCorpus:
    """The shards of a folder, mapped and checked against their checksums on first use.

    `verify_checksums=False` skips the checksums, to look at a single sample.
    """

    def __init__(self, folder: Path, verify_checksums: bool = True) -> None:
        self.folder, self.verify_checksums = folder, verify_checksums
        self.manifest = Manifest.load(folder)
        self.source_names = list(self.manifest.plan.sources)
        # the prepared training shards of each source, in order
        self.shard_infos = [self.manifest.sources[name].shards for name in self.source_names]
        self._tokens: dict[tuple[int, int], Tokens] = {}

    def refresh(self) -> None:
        """Add what `gnano prepare` has finished since."""
        if self.manifest.complete:
            return
        latest = Manifest.load(self.folder)
        if latest.fingerprint != self.manifest.fingerprint:
            raise ValueError(f"{self.folder} was prepared again while it was read; start again.")
        if latest.complete:
            self.manifest = latest
        else:
            # the list in memory only grows, whereas the markers are deleted at the end
            self.manifest.refresh(self.folder)
        self.shard_infos = [self.manifest.sources[name].shards for name in self.source_names]

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The folder's tokenizer; raises ValueError if it is not the one of the shards."""
        from gnano.tokenizer.hf_tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.folder)
        if tokenizer.fingerprint != self.manifest.tokenizer["fingerprint"]:
            raise ValueError(
                f"{self.folder / 'tokenizer.json'} is not the tokenizer that made these shards."
            )
        return tokenizer

    def ordered_weights(self, weights: dict[str, float]) -> list[float]:
        """Return a recipe's weights by name in this folder's order of sources."""
        if set(weights) != set(self.source_names):
            raise ValueError(
                f"{self.folder} holds the sources {', '.join(self.source_names)}, but the recipe's "
                f"data.sources are {', '.join(weights)}; prepare the recipe's data, or name "
                f"the right folder (data.folder)."
            )
        for name in self.source_names:
            source = self.manifest.sources[name]
            if weights[name] and source.complete and not source.tokens:
                raise ValueError(f"Source {name!r} of {self.folder} has no training tokens.")
        return [weights[name] for name in self.source_names]

    def shard_tokens(self, source: int, shard: int) -> Tokens:
        """Return the ids of a training shard; its checksum is checked the first time."""
        if (source, shard) not in self._tokens:
            folder, info = self.folder / self.source_names[source], self.shard_infos[source][shard]
            tokens = open_shard_file(folder, info, "tokens", self.verify_checksums)
            self._tokens[source, shard] = tokens
        return self._tokens[source, shard]

    def document_offsets(self, source: int, shard: int) -> Offsets:
        """Return where the documents of a training shard start."""
        folder, info = self.folder / self.source_names[source], self.shard_infos[source][shard]
        return open_shard_file(folder, info, "docs", self.verify_checksums)

    def heldout_tokens(self, source: int) -> Tokens:
        """Return the ids of a source's prepared held-out documents."""
        name = self.source_names[source]
        parts = [
            open_shard_file(self.folder / name, shard, "tokens", self.verify_checksums)
            for shard in self.manifest.sources[name].heldout
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.uint16)

    def heldout_rows(self, source: int, block_size: int) -> list[HeldoutRow]:
        """Return all held-out rows of a source, with T = `block_size`."""
        tokens = self.heldout_tokens(source)
        rows = []
        seen = 0
        for start in heldout_row_starts(len(tokens), block_size):
            end = min(start + block_size + 1, len(tokens))
            rows.append(HeldoutRow(tokens[start:end], end - 1 - seen))
            seen = end - 1
        return rows

    def heldout_text(self, source: int) -> bytes:
        """Return the joined held-out documents of a source as their original bytes."""
        return self.tokenizer.decode_bytes(self.heldout_tokens(source).tolist())


def heldout_row_starts(tokens: int, block_size: int) -> list[int]:
    """Return where held-out rows start; fewer tokens than a row are one row."""
    if tokens < 2:
        return []
    last = max(tokens - block_size - 1, 0)
    return [min(start, last) for start in range(0, tokens - 1, block_size)]


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
        for is_refreshed in (False, True):
            if is_refreshed:  # perhaps by another reader of the corpus
                self.corpus.refresh()
                self._rebuild_sampler()
            if all(self.sampler.is_complete):
                return None
            try:
                for sample in samples:
                    self.sampler.locate(sample)
                return None
            except ShardNotReady as error:
                missing = error
        name = self.corpus.source_names[missing.source]
        return (
            f"waiting for `gnano prepare`: shard {missing.shard + 1} of source {name!r} "
            f"in {self.corpus.folder}"
        )

    def read_batch(self, samples: Sequence[int]) -> Batch:
        """Return the batch of these samples."""
        import torch

        B, T = len(samples), self.block_size
        inputs, targets = np.empty((2, B, T), dtype=np.int64)
        segments = np.empty((B, T), dtype=np.int32)
        for b, i in enumerate(samples):
            index = self.sampler.locate(i)
            tokens = self.corpus.shard_tokens(index.source, index.shard)
            spans = self.row_spans(index)
            if self.packing == "best-fit":
                fill_row(
                    tokens,
                    spans,
                    inputs[b],
                    targets[b],
                    segments[b],
                    end_of_text=self.end_of_text,
                    ignore_index=IGNORE_INDEX,
                )
            else:
                ((start, stop),) = spans
                inputs[b], targets[b] = tokens[start : stop - 1], tokens[start + 1 : stop]
        if self.document_attention_mask and self.packing == "stream":
            np.cumsum(inputs == self.end_of_text, axis=1, out=segments)
        segments_BT = torch.from_numpy(segments) if self.document_attention_mask else None
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets), segments_BT)

    def row_spans(self, index: SampleIndex) -> list[tuple[int, int]]:
        """Return the spans [start, stop) of its shard's tokens that make up a row."""
        if self.packing == "best-fit":
            shard, packing = self._packing_by_source.get(index.source, (-1, None))
            if packing is None or shard != index.shard:  # one packing per source is cached
                packing = BestFitPacking(*self._packing_args(index.source, index.shard))
                self._packing_by_source[index.source] = index.shard, packing
            return packing.row_spans(index.row)
        tokens = self.corpus.shard_infos[index.source][index.shard].tokens
        start = min(index.row * self.block_size, tokens - self.block_size - 1)
        return [(start, start + self.block_size + 1)]

    def packing_stats(self) -> PackingStats:
        """Return the overhead in all prepared shards; reads only the documents' starts."""
        slots = padding = repeated = dropped = 0
        for source, rows in enumerate(self.rows_per_shard):
            for shard, count in enumerate(rows):
                tokens = self.corpus.shard_infos[source][shard].tokens
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
            for shard in range(len(rows), len(self.corpus.shard_infos[source])):
                if self.packing == "best-fit":
                    rows.append(count_packing(*self._packing_args(source, shard)).rows)
                else:
                    tokens = self.corpus.shard_infos[source][shard].tokens
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
        tokens = self.corpus.shard_infos[source][shard].tokens
        return self.corpus.document_offsets(source, shard), tokens, self.block_size


def iter_heldout_batches(
    rows: Sequence[HeldoutRow], block_size: int, batch_size: int
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Yield inputs and targets [B, T], int64; repeated and padding targets are IGNORE_INDEX."""
    import torch

    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        inputs = np.zeros((len(batch), block_size), dtype=np.int64)
        targets = np.full((len(batch), block_size), IGNORE_INDEX, dtype=np.int64)
        for b, (ids, new_targets) in enumerate(batch):
            n = len(ids) - 1
            inputs[b, :n] = ids[:-1]
            targets[b, n - new_targets : n] = ids[len(ids) - new_targets :]
        yield torch.from_numpy(inputs), torch.from_numpy(targets)
