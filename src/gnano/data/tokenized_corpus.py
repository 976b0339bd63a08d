"""A prepared folder, or one that is still being prepared, opened for reading."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnano.data.manifest import Manifest
from gnano.data.shards import Offsets, ShardInfo, Tokens, open_offsets, open_tokens

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


class HeldoutRow(NamedTuple):
    ids: Tokens  # [T + 1], or fewer where the whole shard is shorter
    new_targets: int  # how many of the last targets no earlier row had


class TokenizedCorpus:
    """Shards are mapped on first use, and then held against their checksums.

    `check=False` leaves the checksums out, for a glance at a single sample.
    """

    def __init__(self, folder: Path, verify_checksums: bool = True) -> None:
        self.folder, self.verify_checksums = folder, verify_checksums
        self.manifest = Manifest.load(folder)
        self.source_names = list(self.manifest.plan.sources)
        self._shards: dict[str, list[ShardInfo]] = {}
        self._tokens: dict[tuple[int, int], Tokens] = {}
        self._update_shards()

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
        self._update_shards()

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from gnano.tokenizer.bpe import Tokenizer

        tokenizer = Tokenizer.load(self.folder)
        if tokenizer.fingerprint != self.manifest.tokenizer["fingerprint"]:
            raise ValueError(
                f"{self.folder / 'tokenizer.json'} is not the tokenizer that made these shards."
            )
        return tokenizer

    def ordered_weights(self, weights: dict[str, float]) -> list[float]:
        """A recipe's weights by name, in this folder's order of sources."""
        unknown = sorted(set(weights) - set(self.source_names))
        lacking = sorted(set(self.source_names) - set(weights))
        if unknown or lacking:
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

    def shard_infos(self, source: int) -> list[ShardInfo]:
        """The training shards of a source, in their sequence, as far as they are prepared."""
        return self._shards[self.source_names[source]]

    def shard_tokens(self, source: int, shard: int) -> Tokens:
        """The ids of a training shard; its checksum is held against it the first time."""
        opened = self._tokens.get((source, shard))
        if opened is None:
            name = self.source_names[source]
            opened = open_tokens(
                self.folder / name, self._shards[name][shard], self.verify_checksums
            )
            self._tokens[source, shard] = opened
        return opened

    def document_offsets(self, source: int, shard: int) -> Offsets:
        """Where the documents of a training shard start."""
        name = self.source_names[source]
        return open_offsets(self.folder / name, self._shards[name][shard], self.verify_checksums)

    def heldout_tokens(self, source: int) -> Tokens:
        """The ids of a source's held-out documents, as far as they are prepared."""
        name = self.source_names[source]
        parts = [
            open_tokens(self.folder / name, shard, self.verify_checksums)
            for shard in self.manifest.sources[name].heldout
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.uint16)

    def heldout_rows(self, source: int, block_size: int) -> list[HeldoutRow]:
        """All held-out rows of a source, T = `length`."""
        tokens = self.heldout_tokens(source)
        rows = []
        seen = 0
        for start in heldout_row_starts(len(tokens), block_size):
            end = min(start + block_size + 1, len(tokens))
            rows.append(HeldoutRow(tokens[start:end], end - 1 - seen))
            seen = end - 1
        return rows

    def heldout_text(self, source: int) -> bytes:
        """The held-out documents of a source, joined, as the bytes they came as."""
        return self.tokenizer.decode_bytes(self.heldout_tokens(source).tolist())

    def _update_shards(self) -> None:
        self._shards = {name: info.shards for name, info in self.manifest.sources.items()}


def heldout_row_starts(tokens: int, block_size: int) -> list[int]:
    """Where the rows of a held-out shard start; a shard shorter than a row is one row."""
    if tokens < 2:
        return []
    last = max(tokens - block_size - 1, 0)
    return [min(start, last) for start in range(0, tokens - 1, block_size)]
