"""From shards to tensors: training batches by sample number, held-out rows in sequence.

A shard's tokens are cut into rows of T + 1 that overlap by one, so that every token but
the first is predicted exactly once; the last row is moved back to end with the shard, so
that none is left over.

    tokens   0 1 2 3 4 5 6 7 8 9        T = 4
    row 0    0 1 2 3 4
    row 1            4 5 6 7 8
    row 2              5 6 7 8 9        (repeats 5 … 8; held-out scoring ignores repeats)
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gnano.data.manifest import Manifest, SourceInfo
from gnano.data.order import BLOCK, Order, Place
from gnano.data.shards import Tokens, open_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from gnano.tokenizer import Tokenizer


class HeldoutRow(NamedTuple):
    ids: Tokens  # [T + 1], or fewer where the whole shard is shorter
    new: int  # how many of the last targets no earlier row had


class Corpus:
    """A prepared folder, opened for reading. Shards are mapped and checked on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.load(folder)
        if not self.manifest.complete:
            raise ValueError(
                f"{folder} is not fully prepared; run the same `gnano prepare` again to go on."
            )
        self.names = list(self.manifest.sources)
        self._training: dict[tuple[int, int], Tokens] = {}

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from gnano.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(self.folder)
        if tokenizer.fingerprint != self.manifest.tokenizer["fingerprint"]:
            raise ValueError(
                f"{self.folder / 'tokenizer.json'} is not the tokenizer that made these shards."
            )
        return tokenizer

    def weights(self, weights: dict[str, float]) -> list[float]:
        """A recipe's weights by name, in this folder's order of sources."""
        unknown = sorted(set(weights) - set(self.names))
        lacking = sorted(set(self.names) - set(weights))
        if unknown or lacking:
            raise ValueError(
                f"{self.folder} holds the sources {', '.join(self.names)}, but the recipe's "
                f"data.sources are {', '.join(weights)}; prepare the recipe's data, or name "
                f"the right folder (data.folder)."
            )
        for name in self.names:
            if weights[name] and not self.manifest.sources[name].tokens:
                raise ValueError(f"Source {name!r} of {self.folder} has no training tokens.")
        return [weights[name] for name in self.names]

    def tokens(self, source: int, shard: int) -> Tokens:
        """The ids of a training shard; its checksum is held against it the first time."""
        opened = self._training.get((source, shard))
        if opened is None:
            name = self.names[source]
            opened = open_tokens(self.folder / name, self.manifest.sources[name].shards[shard])
            self._training[source, shard] = opened
        return opened

    def heldout(self, source: int) -> Tokens:
        """The ids of a source's held-out documents."""
        name = self.names[source]
        return open_tokens(self.folder / name, self.manifest.sources[name].heldout)

    def heldout_rows(self, source: int, length: int) -> list[HeldoutRow]:
        """All held-out rows of a source, T = `length`."""
        tokens = self.heldout(source)
        rows = []
        seen = 0
        for start in row_starts(len(tokens), length):
            end = min(start + length + 1, len(tokens))
            rows.append(HeldoutRow(tokens[start:end], end - 1 - seen))
            seen = end - 1
        return rows

    def heldout_text(self, source: int) -> bytes:
        """The held-out documents of a source, joined, as the bytes they came as."""
        return self.tokenizer.decode_bytes(self.heldout(source).tolist())


class Batches:
    """Sequences by sample number: no state, so any batch can be had at any time."""

    def __init__(self, corpus: Corpus, weights: dict[str, float], seed: int, length: int) -> None:
        self.corpus, self.length = corpus, length
        shares = corpus.weights(weights)
        sources = list(corpus.manifest.sources.values())
        rows = [_rows(source, length) for source in sources]
        for name, share, shards in zip(corpus.names, shares, rows, strict=True):
            if share and not sum(shards):
                raise ValueError(
                    f"Source {name!r} of {corpus.folder} has fewer than {length + 1:,} tokens, "
                    f"not one sequence of the model's context {length:,} (model.block_size)."
                )
            if share and share / sum(shares) * BLOCK < 1:
                raise ValueError(
                    f"Source {name!r} has {share / sum(shares):.2%} of the weight, and would never "
                    f"come: give it at least 1 in {BLOCK:,}, or 0."
                )
        self.order = Order(rows, shares, seed)

    def place(self, i: int) -> Place:
        """Where sample i lies: source, epoch, shard, row."""
        return self.order(i)

    def sequence(self, i: int) -> Tokens:
        """The T + 1 ids of sample i."""
        place = self.place(i)
        tokens = self.corpus.tokens(place.source, place.shard)
        start = min(place.row * self.length, len(tokens) - self.length - 1)
        return tokens[start : start + self.length + 1]

    def batch(self, samples: Sequence[int]) -> tuple["Tensor", "Tensor"]:
        """Inputs and targets [B, T], int64: the target of a token is the one after it."""
        ids = np.empty((len(samples), self.length + 1), dtype=np.int64)
        for row, i in enumerate(samples):
            ids[row] = self.sequence(i)
        return _tensor(ids[:, :-1]), _tensor(ids[:, 1:])


def heldout_batches(
    rows: Sequence[HeldoutRow], length: int, size: int, ignore: int
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Inputs and targets [B, T], int64, with repeats and padding as the target `ignore`."""
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        inputs = np.zeros((len(part), length), dtype=np.int64)
        targets = np.full((len(part), length), ignore, dtype=np.int64)
        for number, (ids, new) in enumerate(part):
            n = len(ids) - 1
            inputs[number, :n] = ids[:-1]
            targets[number, n - new : n] = ids[len(ids) - new :]
        yield _tensor(inputs), _tensor(targets)


def row_starts(tokens: int, length: int) -> list[int]:
    """Where the rows of a held-out shard start; a shard shorter than a row is one row."""
    if tokens < 2:
        return []
    last = max(tokens - length - 1, 0)
    return [min(start, last) for start in range(0, tokens - 1, length)]


def _rows(source: SourceInfo, length: int) -> list[int]:
    return [-(-(s.tokens - 1) // length) if s.tokens > length else 0 for s in source.shards]


def _tensor(array: Any) -> "Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
