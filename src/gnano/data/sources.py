"""What goes into the mix? Each source's text and its share, as a recipe's `[data]` says."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gnano.data.bad_records import MAX_BAD_SHARE
from gnano.utils.ranges import Range, check_ranges

Kind = Literal["files", "hub", "python-prose", "python-code", "synthetic"]
GENERATED = ("python-prose", "python-code", "synthetic")  # text that needs no file


HUB_KEYS = dict.fromkeys(("repo", "config", "split", "revision"), ("hub",))


def check_use(source: Any, uses: dict[str, tuple[str, ...]]) -> None:
    """Raise ValueError for a setting that a source of this kind has no use for.

    `uses` says which kinds a key is for.
    """
    for key, kinds in uses.items():
        default = type(source).__dataclass_fields__[key].default
        if source.kind not in kinds and (getattr(source, key) or default) != default:
            raise ValueError(
                f"A source of kind {source.kind!r} has no use for {key} "
                f"({getattr(source, key)!r}); it is for kind {' or '.join(map(repr, kinds))}."
            )


@dataclass(frozen=True, kw_only=True)
class Source:
    weight: float = 1.0  # share of the sequences, relative to the other sources' weights
    kind: Kind = "files"  # files of yours, a Hub data set, or text that every Python can give
    files: tuple[str, ...] = ()  # files: paths, folders, globs; text, JSONL, CSV, Parquet, packed
    repo: str = ""  # hub: the data set, USER/NAME
    config: str = ""  # hub: its configuration, or a folder in it; empty: all of it
    split: str = "train"  # hub: which split
    revision: str = "main"  # hub: branch, tag or commit; the commit found is kept
    column: str = "text"  # which column of JSONL, CSV and Parquet files holds the text
    max_tokens: int = 0  # files, hub: stop with the file that reaches so many, or in it; 0: all
    max_bytes: int = 0  # the other kinds: how much UTF-8 text to take
    min_chars: int = 1  # drop shorter documents
    max_chars: int = 0  # drop longer documents; 0: none is too long

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"A source's weight is {self.weight}; it must be 0 or more.")
        for key in ("max_tokens", "max_bytes", "min_chars", "max_chars"):
            if getattr(self, key) < 0:
                raise ValueError(f"A source's {key} is {getattr(self, key)}; use 0 or more.")
        if 0 < self.max_chars < self.min_chars:
            raise ValueError(
                f"A source's max_chars {self.max_chars} is below its min_chars {self.min_chars}, "
                f"so no document would stay."
            )
        if self.kind in GENERATED and not self.max_bytes:
            raise ValueError(f"A source of kind {self.kind!r} needs max_bytes, how much to take.")
        if self.kind in GENERATED and self.max_tokens:
            raise ValueError(f"A source of kind {self.kind!r} takes max_bytes, not max_tokens.")
        if self.kind not in GENERATED and self.max_bytes:
            raise ValueError(f"A source of kind {self.kind!r} takes max_tokens, not max_bytes.")
        if self.kind == "hub" and self.repo.count("/") != 1:
            raise ValueError(
                f"A source of kind 'hub' needs repo, USER/NAME of a data set; it is {self.repo!r}."
            )
        if self.kind == "hub" and self.files:
            raise ValueError("A source of kind 'hub' takes repo and config; files needs 'files'.")
        check_use(self, {"files": ("files",), "column": ("files", "hub"), **HUB_KEYS})

    @property
    def where(self) -> str:
        """Where its text lies, for messages."""
        if self.kind == "hub":
            return f"{self.repo} {self.config}".strip()
        return ", ".join(self.files) or self.kind


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    folder: str = "data/mine"  # where the token shards lie
    tokenizer: str = "gpt2"  # gpt2, bpe-N (trained on this corpus, N entries), or a folder
    heldout: float = 0.005  # share of the documents kept from training
    shard_tokens: int = 2**26  # tokens in a shard file, about; 2 bytes each
    decontaminate: tuple[str, ...] = ()  # evaluation files; documents sharing 13 words are dropped
    workers: int = 0  # processes that tokenize; 0: one per core
    # a source is refused where a greater share of its records cannot be used
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    keep_downloads: bool = False  # keep the Hub's files after they are tokenized
    packing: Literal["stream", "best-fit"] = "stream"  # cut rows anywhere, or at documents' ends
    inside_documents: bool = False  # attention stays inside each document
    seed: int = 0  # of the order in which sequences are read
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, "data")
        if not 0 <= self.heldout < 1:
            raise ValueError(f"data.heldout is {self.heldout}; it is a share, in [0, 1).")
        if not 1 <= self.shard_tokens < 2**31:
            raise ValueError(f"data.shard_tokens is {self.shard_tokens}; use 1 to {2**31 - 1:,}.")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; use 0 (one per core) or more.")
        if self.seed < 0:
            raise ValueError(f"data.seed is {self.seed}; use 0 or more.")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one a share.")
        for name in self.sources:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(
                    f"Source {name!r} names a folder: use letters, digits, - and _ only."
                )

    @property
    def weights(self) -> dict[str, float]:
        return {name: source.weight for name, source in self.sources.items()}
