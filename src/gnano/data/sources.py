"""What goes into the mix? Each source's text and its share, as a recipe's `[data]` says."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gnano.data.documents import Document, find_files, read_documents

Kind = Literal["files", "python-prose", "python-code", "synthetic"]


@dataclass(frozen=True, kw_only=True)
class Source:
    weight: float = 1.0  # share of the sequences, relative to the other sources' weights
    kind: Kind = "files"  # files of yours, or text that every Python installation can give
    files: tuple[str, ...] = ()  # paths, folders or globs: text, JSONL or Parquet; .gz and .zst
    column: str = "text"  # which column of JSONL and Parquet files holds the text
    max_bytes: int = 0  # stop after so much UTF-8 text; 0: take all

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"A source's weight is {self.weight}; it must be 0 or more.")
        if self.max_bytes < 0:
            raise ValueError(f"A source's max_bytes is {self.max_bytes}; 0 takes all.")
        if self.kind != "files" and not self.max_bytes:
            raise ValueError(f"A source of kind {self.kind!r} needs max_bytes, how much to take.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    folder: str = "data/mine"  # where the token shards lie
    tokenizer: str = "gpt2"  # gpt2, bpe-N (trained on this corpus, N entries), or a folder
    heldout: float = 0.005  # share of the documents kept from training
    shard_tokens: int = 2**26  # tokens in a shard file, about; 2 bytes each
    seed: int = 0  # of the order in which sequences are read
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.heldout < 1:
            raise ValueError(f"data.heldout is {self.heldout}; it is a share, in [0, 1).")
        if not 1 <= self.shard_tokens < 2**31:
            raise ValueError(f"data.shard_tokens is {self.shard_tokens}; use 1 to {2**31 - 1:,}.")
        if self.seed < 0:
            raise ValueError(f"data.seed is {self.seed}; use 0 or more.")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one a share.")
        for name in self.sources:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(
                    f"Source {name!r} names a folder: use letters, digits, - and _ only."
                )


def documents(source: Source) -> Iterator[Document]:
    """The source's documents in their fixed order, up to its budget."""
    total = 0
    for document in _all_documents(source):
        if source.max_bytes and total >= source.max_bytes:
            return
        total += len(document.text.encode())
        yield document


def _all_documents(source: Source) -> Iterator[Document]:
    match source.kind:
        case "python-prose":
            from gnano.data.python_corpus import python_prose

            yield from python_prose(source.max_bytes)
        case "python-code":
            from gnano.data.python_corpus import python_code

            yield from python_code(source.max_bytes)
        case "synthetic":
            from gnano.data.synthetic import passages

            for text in passages(seed=0):
                yield Document(text)
        case "files":
            for path in find_files(source.files):
                yield from read_documents(path, source.column)
