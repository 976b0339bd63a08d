"""What does a prepared folder hold? `manifest.json`: counts, checksums, and a fingerprint.

It is replaced atomically after each finished source, so it never names what is not there.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gnano.data.shards import ShardInfo

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """One finished source; its shards lie in the folder of its name."""

    shards: list[ShardInfo]
    heldout: ShardInfo
    duplicates: int  # documents dropped because their text came before

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


@dataclass(kw_only=True)
class Manifest:
    plan: dict[str, Any]  # what was asked for: sources with their files, tokenizer, split
    tokenizer: dict[str, Any]  # name, fingerprint, vocab_size
    sources: dict[str, SourceInfo] = field(default_factory=dict)
    complete: bool = False

    @property
    def fingerprint(self) -> str:
        """Stands for every token in its place; what the order of a run depends on."""
        # a list: the order of the sources is part of the order of the samples
        shards = [[name, asdict(source)["shards"]] for name, source in self.sources.items()]
        content = json.dumps([FORMAT, self.tokenizer["fingerprint"], shards], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        content = {"format": FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        temporary = folder / f"{NAME}.partial"
        with temporary.open("w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Raises FileNotFoundError or ValueError, in a sentence, for what is not a manifest."""
        path = folder / NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not a prepared data folder ({NAME} is missing); "
                f"make it with `gnano prepare`."
            )
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
            manifest = cls(
                plan=content["plan"],
                tokenizer=content["tokenizer"],
                sources={k: _source(v) for k, v in content["sources"].items()},
                complete=content["complete"],
            )
            if manifest.fingerprint != content["fingerprint"]:
                raise ValueError("its fingerprint is not that of its content")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete {folder} and prepare it again."
            ) from None
        return manifest


def _source(content: dict[str, Any]) -> SourceInfo:
    return SourceInfo(
        shards=[ShardInfo(**shard) for shard in content["shards"]],
        heldout=ShardInfo(**content["heldout"]),
        duplicates=content["duplicates"],
    )
