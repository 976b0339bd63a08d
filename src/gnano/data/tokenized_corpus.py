"""Reads a prepared folder, or one that is still being prepared."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnano.data.manifest import Manifest
from gnano.data.shards import Offsets, ShardInfo, Tokens, open_offsets, open_tokens

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


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
        self._shards: dict[str, list[ShardInfo]] = {}
        self._tokens: dict[tuple[int, int], Tokens] = {}
        self._update_shards()

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
        self._update_shards()

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The folder's tokenizer; raises ValueError if it is not the one of the shards."""
        from gnano.tokenizer.bpe import Tokenizer

        tokenizer = Tokenizer.load(self.folder)
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

    def shard_infos(self, source: int) -> list[ShardInfo]:
        """Return the prepared training shards of a source, in order."""
        return self._shards[self.source_names[source]]

    def shard_tokens(self, source: int, shard: int) -> Tokens:
        """Return the ids of a training shard; its checksum is checked the first time."""
        if (source, shard) not in self._tokens:
            name = self.source_names[source]
            self._tokens[source, shard] = open_tokens(
                self.folder / name, self._shards[name][shard], self.verify_checksums
            )
        return self._tokens[source, shard]

    def document_offsets(self, source: int, shard: int) -> Offsets:
        """Return where the documents of a training shard start."""
        name = self.source_names[source]
        return open_offsets(self.folder / name, self._shards[name][shard], self.verify_checksums)

    def heldout_tokens(self, source: int) -> Tokens:
        """Return the ids of a source's prepared held-out documents."""
        name = self.source_names[source]
        parts = [
            open_tokens(self.folder / name, shard, self.verify_checksums)
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

    def _update_shards(self) -> None:
        self._shards = {name: info.shards for name, info in self.manifest.sources.items()}


def heldout_row_starts(tokens: int, block_size: int) -> list[int]:
    """Return where held-out rows start; fewer tokens than a row are one row."""
    if tokens < 2:
        return []
    last = max(tokens - block_size - 1, 0)
    return [min(start, last) for start in range(0, tokens - 1, block_size)]
