"""A prepared folder, or one that is still being prepared, opened for reading."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnano.data.manifest import Manifest
from gnano.data.shards import ShardInfo, Starts, Tokens, open_starts, open_tokens

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


class HeldoutRow(NamedTuple):
    ids: Tokens  # [T + 1], or fewer where the whole shard is shorter
    new: int  # how many of the last targets no earlier row had


class Corpus:
    """Shards are mapped on first use, and then held against their checksums.

    `check=False` leaves the checksums out, for a glance at a single sample.
    """

    def __init__(self, folder: Path, check: bool = True) -> None:
        self.folder, self.check = folder, check
        self.manifest = Manifest.load(folder)
        self.names = list(self.manifest.plan.sources)
        self._shards: dict[str, list[ShardInfo]] = {}
        self._tokens: dict[tuple[int, int], Tokens] = {}
        self._list()

    def refresh(self) -> None:
        """Take in what `gnano prepare` has finished since."""
        if self.manifest.complete:
            return
        latest = Manifest.load(self.folder)
        if latest.fingerprint != self.manifest.fingerprint:
            raise ValueError(f"{self.folder} was prepared anew while it was read; start again.")
        if latest.complete:
            self.manifest = latest
        else:
            # its own list only grows, whereas a reader of markers may come as they are cleared
            self.manifest.refresh(self.folder)
        self._list()

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from gnano.tokenizer.bpe import Tokenizer

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
            source = self.manifest.sources[name]
            if weights[name] and source.complete and not source.tokens:
                raise ValueError(f"Source {name!r} of {self.folder} has no training tokens.")
        return [weights[name] for name in self.names]

    def shards(self, source: int) -> list[ShardInfo]:
        """The training shards of a source, in their sequence, as far as they are prepared."""
        return self._shards[self.names[source]]

    def tokens(self, source: int, shard: int) -> Tokens:
        """The ids of a training shard; its checksum is held against it the first time."""
        opened = self._tokens.get((source, shard))
        if opened is None:
            name = self.names[source]
            opened = open_tokens(self.folder / name, self._shards[name][shard], self.check)
            self._tokens[source, shard] = opened
        return opened

    def starts(self, source: int, shard: int) -> Starts:
        """Where the documents of a training shard start."""
        name = self.names[source]
        return open_starts(self.folder / name, self._shards[name][shard], self.check)

    def heldout(self, source: int) -> Tokens:
        """The ids of a source's held-out documents, as far as they are prepared."""
        name = self.names[source]
        parts = [
            open_tokens(self.folder / name, shard, self.check)
            for shard in self.manifest.sources[name].heldout
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.uint16)

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

    def _list(self) -> None:
        self._shards = {name: info.shards for name, info in self.manifest.sources.items()}


def row_starts(tokens: int, length: int) -> list[int]:
    """Where the rows of a held-out shard start; a shard shorter than a row is one row."""
    if tokens < 2:
        return []
    last = max(tokens - length - 1, 0)
    return [min(start, last) for start in range(0, tokens - 1, length)]
