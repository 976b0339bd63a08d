"""Batches of tensors from shards: training samples by number, held-out rows in sequence.

A shard's tokens are cut into rows of T + 1 that overlap by one, so that every token but
the first is predicted exactly once; the last row is moved back to end with the shard, so
that none is left over.

    tokens   0 1 2 3 4 5 6 7 8 9        T = 4
    row 0    0 1 2 3 4
    row 1            4 5 6 7 8
    row 2              5 6 7 8 9        (repeats 5 … 8; held-out scoring ignores repeats)

Instead, `packing` "best-fit" lays whole documents together (see `packing`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gnano.data import packing
from gnano.data.corpus import Corpus, HeldoutRow
from gnano.data.order import BLOCK, NotYet, Order, Place
from gnano.data.shards import Tokens

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100  # a target that does not count; PyTorch's own choice


class Batch(NamedTuple):
    inputs_BT: "Tensor"  # int64
    targets_BT: "Tensor"  # int64: the token after each input; IGNORE where none counts
    segments_BT: "Tensor | None"  # int32: which document; None: attention crosses documents

    def each(self, work: Callable[["Tensor"], "Tensor"]) -> "Batch":
        """The same batch, of tensors with which something was done."""
        segments_BT = None if self.segments_BT is None else work(self.segments_BT)
        return Batch(work(self.inputs_BT), work(self.targets_BT), segments_BT)

    def counted(self) -> "Tensor":
        """How many of its targets count, on its device."""
        return (self.targets_BT != IGNORE).sum()

    @property
    def score(self) -> None:
        """For `GPT.loss`: nothing weighs its targets, the loss is the sum of their nats."""


class Waste(NamedTuple):
    """What the rows of all shards hold beside every token once."""

    packing: str
    length: int  # T
    room: int  # targets of all rows
    padding: int  # of these, empty or between two documents
    repeated: int  # of these, predicted twice
    left_out: int  # tokens in no row

    def __str__(self) -> str:
        room = max(self.room, 1)
        return (
            f"rows of {self.length:,} tokens, {self.packing}: {self.padding / room:.3%} padding, "
            f"{self.repeated / room:.3%} predicted twice, {self.left_out:,} tokens left out"
        )


class Batches:
    """Sequences by sample number: no state, so any batch can be had at any time."""

    def __init__(
        self,
        corpus: Corpus,
        weights: dict[str, float],
        seed: int,
        length: int,
        how: Literal["stream", "best-fit"] = "stream",
        inside_documents: bool = False,
    ) -> None:
        self.corpus, self.length, self.seed = corpus, length, seed
        self.packing, self.inside_documents = how, inside_documents
        self.weights = corpus.weights(weights)
        self.end_of_text: int = corpus.manifest.tokenizer["end_of_text"]
        self.rows: list[list[int]] = [[] for _ in corpus.names]  # by source and shard
        self._packings: dict[int, tuple[int, packing.Packing]] = {}  # by source
        self._arrange()

    def lacking(self, samples: Sequence[int]) -> str | None:
        """What these samples wait for while the folder is being prepared; None: they are here."""
        # the corpus may have become complete under another reader since this order was made
        if all(self.order.complete) or self._first_missing(samples) is None:
            return None
        self.corpus.refresh()
        self._arrange()
        missing = self._first_missing(samples)
        if missing is None:
            return None
        name = self.corpus.names[missing.source]
        return (
            f"waiting for `gnano prepare`: shard {missing.shard + 1} of source {name!r} "
            f"in {self.corpus.folder}"
        )

    def sequence(self, i: int) -> Tokens:
        """The T + 1 ids of sample i of a stream."""
        place = self.order.locate(i)
        ((start, stop),) = self.ranges(place)
        return self.corpus.tokens(place.source, place.shard)[start:stop]

    def batch(self, samples: Sequence[int]) -> Batch:
        """The rows of these samples."""
        B, T = len(samples), self.length
        inputs, targets = np.empty((2, B, T), dtype=np.int64)
        segments = np.empty((B, T), dtype=np.int32)
        for b, i in enumerate(samples):
            if self.packing == "best-fit":
                place = self.order.locate(i)
                packing.fill_row(
                    self.corpus.tokens(place.source, place.shard),
                    self.ranges(place),
                    inputs[b],
                    targets[b],
                    segments[b],
                    end_of_text=self.end_of_text,
                    ignore=IGNORE,
                )
            else:
                ids = self.sequence(i)
                inputs[b], targets[b] = ids[:-1], ids[1:]
        if self.inside_documents and self.packing == "stream":
            np.cumsum(inputs == self.end_of_text, axis=1, out=segments)
        return Batch(
            _tensor(inputs),
            _tensor(targets),
            _tensor(segments) if self.inside_documents else None,
        )

    def ranges(self, place: Place) -> list[tuple[int, int]]:
        """Which tokens of its shard make up a row, [first, last) each."""
        if self.packing == "best-fit":
            return self._packing(place).row(place.row)
        tokens = self.corpus.shards(place.source)[place.shard].tokens
        start = min(place.row * self.length, tokens - self.length - 1)
        return [(start, start + self.length + 1)]

    def waste(self) -> Waste:
        """Of the shards that are prepared; by arithmetic, nothing is read but documents' starts."""
        room = padding = repeated = left_out = 0
        for source, rows in enumerate(self.rows):
            for shard, count in enumerate(rows):
                tokens = self.corpus.shards(source)[shard].tokens
                room += count * self.length
                if self.packing == "best-fit":
                    cost = packing.waste(*self._documents(source, shard))
                    padding += cost.borders + cost.padding
                    left_out += cost.dropped
                elif count:
                    repeated += count * self.length - (tokens - 1)
                else:
                    left_out += tokens
        return Waste(self.packing, self.length, room, padding, repeated, left_out)

    def _arrange(self) -> None:
        """The order over the shards that are there."""
        complete = []
        for source, name in enumerate(self.corpus.names):
            rows = self.rows[source]
            for shard in range(len(rows), len(self.corpus.shards(source))):
                rows.append(self._count(source, shard))
            complete.append(self.corpus.manifest.sources[name].complete)
            share = self.weights[source]
            if share and complete[-1] and not sum(rows):
                raise ValueError(
                    f"Source {name!r} of {self.corpus.folder} has fewer than "
                    f"{self.length + 1:,} tokens, not one sequence of the model's context "
                    f"{self.length:,} (model.block_size)."
                )
            if share and share / sum(self.weights) * BLOCK < 1:
                raise ValueError(
                    f"Source {name!r} has {share / sum(self.weights):.2%} of the weight, and would "
                    f"never come: give it at least 1 in {BLOCK:,}, or 0."
                )
        self.order = Order(self.rows, self.weights, self.seed, complete)

    def _count(self, source: int, shard: int) -> int:
        """How many rows a shard has."""
        tokens = self.corpus.shards(source)[shard].tokens
        if self.packing == "best-fit":
            return packing.waste(*self._documents(source, shard)).rows
        return -(-(tokens - 1) // self.length) if tokens > self.length else 0

    def _documents(self, source: int, shard: int) -> tuple[Any, int, int]:
        """What best-fit packing depends on: where documents start, how many tokens, T."""
        tokens = self.corpus.shards(source)[shard].tokens
        return self.corpus.starts(source, shard), tokens, self.length

    def _packing(self, place: Place) -> packing.Packing:
        """The rows of a shard; kept for the shards in use, one of each source."""
        number, kept = self._packings.get(place.source, (-1, None))
        if kept is None or number != place.shard:
            kept = packing.Packing(*self._documents(place.source, place.shard))
            self._packings[place.source] = place.shard, kept
        return kept

    def _first_missing(self, samples: Sequence[int]) -> NotYet | None:
        for i in samples:
            try:
                self.order.locate(i)
            except NotYet as missing:
                return missing
        return None


def heldout_batches(
    rows: Sequence[HeldoutRow], length: int, size: int
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Inputs and targets [B, T], int64, with repeats and padding as the target IGNORE."""
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        inputs = np.zeros((len(part), length), dtype=np.int64)
        targets = np.full((len(part), length), IGNORE, dtype=np.int64)
        for number, (ids, new) in enumerate(part):
            n = len(ids) - 1
            inputs[number, :n] = ids[:-1]
            targets[number, n - new : n] = ids[len(ids) - new :]
        yield _tensor(inputs), _tensor(targets)


def _tensor(array: Any) -> "Tensor":
    import torch

    return torch.from_numpy(array)
