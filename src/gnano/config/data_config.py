"""What goes into the mix? Each source's text and its share, as a recipe's `[data]` says.

What is a model tuned on? Records and how they look to it, as a recipe's `[data]` says.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.utils.text import expand_path_fields
from gnano.utils.validation import Range, check_field_ranges, reject_unused

SourceKind = Literal["files", "hub", "generator"]


MAX_BAD_SHARE = 0.05  # a wrong column, form or encoding spoils nearly all records, a slip but few


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    # share of the sequences, relative to the other sources' weights
    weight: Annotated[float, Range(0, 1e12)] = 1.0
    kind: SourceKind = "files"  # files of yours, a Hub data set, or Python code that writes text
    files: tuple[str, ...] = ()  # files: paths, folders, globs; text, JSONL, CSV, Parquet, packed
    repo: str = ""  # hub: the data set, USER/NAME
    config: str = ""  # hub: its configuration, or a folder in it; empty: all of it
    split: str = "train"  # hub: which split
    revision: str = "main"  # hub: branch, tag or commit; the commit found is kept
    generator: str = ""  # generator: MODULE:OBJECT, a gnano.data.generators.SourceGenerator
    column: str = "text"  # which column of JSONL, CSV and Parquet files holds the text
    # files, hub: stop with the file that reaches so many, or in it; 0: all
    max_tokens: Annotated[int, Range(0)] = 0
    max_bytes: Annotated[int, Range(0)] = 0  # generator: how much UTF-8 text to take
    min_chars: Annotated[int, Range(0)] = 1  # drop shorter documents
    max_chars: Annotated[int, Range(0)] = 0  # drop longer documents; 0: none is too long

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self, "data.sources.*")
        why = f"kind is {self.kind!r}"
        if self.kind != "hub":
            reject_unused(self, "data.sources.*.", ("repo", "config", "split", "revision"), why)
        if self.kind == "generator":
            reject_unused(self, "data.sources.*.", ("files", "column"), why)
            check_generator_path(self.generator)
        else:
            reject_unused(self, "data.sources.*.", ("generator",), why)
        if 0 < self.max_chars < self.min_chars:
            raise ValueError(
                f"A source's max_chars {self.max_chars} is below its min_chars {self.min_chars}, "
                f"so no document would stay."
            )
        if self.kind == "generator" and not self.max_bytes:
            raise ValueError(f"A source of kind {self.kind!r} needs max_bytes, how much to take.")
        if self.kind == "generator" and self.max_tokens > 0:
            raise ValueError(f"A source of kind {self.kind!r} takes max_bytes, not max_tokens.")
        if self.kind != "generator" and self.max_bytes > 0:
            raise ValueError(f"A source of kind {self.kind!r} takes max_tokens, not max_bytes.")
        if self.kind == "hub" and self.repo.count("/") != 1:
            raise ValueError(
                f"A source of kind 'hub' needs repo, USER/NAME of a data set; it is {self.repo!r}."
            )
        if self.kind == "hub" and self.files:
            raise ValueError("A source of kind 'hub' takes repo and config; files needs 'files'.")

    @property
    def location(self) -> str:
        """Where its text lies, for messages."""
        if self.kind == "hub":
            return f"{self.repo} {self.config}".strip()
        return ", ".join(self.files) or self.generator or self.kind


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    folder: str = "data/mine"  # where the token shards lie
    tokenizer: str = "gpt2"  # gpt2, bpe-N (trained on this corpus, N entries), or a folder
    # share of the documents kept from training
    heldout_fraction: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.005
    # tokens in a shard file, about; 2 bytes each
    shard_tokens: Annotated[int, Range(1, 2**31 - 1)] = 2**26
    decontaminate: tuple[str, ...] = ()  # evaluation files; documents sharing 13 words are dropped
    workers: Annotated[int, Range(0, 2**16)] = 0  # processes that tokenize; 0: one per core
    # a source is refused where a greater share of its records cannot be used
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    keep_downloads: bool = False  # keep the Hub's files after they are tokenized
    packing: Literal["stream", "best-fit"] = "stream"  # cut rows anywhere, or at documents' ends
    document_attention_mask: bool = False  # attention stays inside each document
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # of the order in which sequences are read
    sources: dict[str, SourceConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_path_fields(self, ("folder", "tokenizer", "decontaminate"))
        check_field_ranges(self, "data")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one a share.")
        for name in self.sources:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(
                    f"Source {name!r} names a folder: use letters, digits, - and _ only."
                )
        by_folder: dict[str, str] = {}
        for name in self.sources:
            if (other := by_folder.setdefault(name.casefold(), name)) != name:
                raise ValueError(
                    f"Sources {other!r} and {name!r} would share one folder where file names "
                    f"ignore case, as on macOS: rename one."
                )

    @property
    def weights(self) -> dict[str, float]:
        return {name: source.weight for name, source in self.sources.items()}


InstructionSourceKind = Literal["files", "hub", "generator"]


@dataclass(frozen=True, kw_only=True)
class InstructionSource:
    # how many times an epoch its rows come; 0.5: another half each time
    weight: Annotated[float, Range(0, 1e12)] = 1.0
    # files of yours, a Hub data set, or Python code that writes records
    kind: InstructionSourceKind = "files"
    files: tuple[str, ...] = ()  # files: paths, folders or globs; JSONL, a JSON list, CSV, Parquet
    repo: str = ""  # hub: the data set, USER/NAME
    config: str = ""  # hub: its configuration, or a folder in it; empty: all of it
    split: str = "train"  # hub: which split
    revision: str = "main"  # hub: branch, tag or commit; the commit found is kept
    generator: str = ""  # generator: MODULE:OBJECT, a gnano.data.generators.SourceGenerator
    max_records: Annotated[int, Range(0)] = 0  # take the first so many; 0: all

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self, "data.sources.*")
        why = f"kind is {self.kind!r}"
        if self.kind != "hub":
            reject_unused(self, "data.sources.*.", ("repo", "config", "split", "revision"), why)
        if self.kind != "files":
            reject_unused(self, "data.sources.*.", ("files",), why)
        if self.kind == "generator":
            check_generator_path(self.generator)
        else:
            reject_unused(self, "data.sources.*.", ("generator",), why)
        if self.kind == "hub" and self.repo.count("/") != 1:
            raise ValueError(
                f"A source of kind 'hub' needs repo, USER/NAME of a data set; it is {self.repo!r}."
            )

    @property
    def location(self) -> str:
        """Where its records lie, for messages."""
        if self.kind == "hub":
            return f"{self.repo} {self.config}".strip()
        return ", ".join(self.files) or self.generator or self.kind


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    kind: Literal["instructions", "preferences"] = "instructions"  # answers, or pairs of them
    template: str = ""  # alpaca, chatml, plain, a TOML file; empty: the base's own, or alpaca
    # passes over the rows: train.steps follow from it; 0: they are as given
    epochs: Annotated[float, Range(0)] = 3.0
    # share of the questions kept from training
    heldout_fraction: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.02
    packing: bool = True  # several examples in a row, each on its own
    # a source is refused where a greater share of its records cannot be used
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    cache_dir: str = "data/hub"  # where the Hub's files are kept
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # of the order in which rows are read
    sources: dict[str, InstructionSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_path_fields(self, ("template", "cache_dir"))
        check_field_ranges(self, "data")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one more.")


def check_generator_path(path: str) -> None:
    """Raise ValueError where a generator's path does not have the form MODULE:OBJECT."""
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), name]):
        raise ValueError(
            f"A source of kind 'generator' needs generator, MODULE:OBJECT of Python code; it is "
            f"{path!r}."
        )
