"""The settings of `[data]` in a recipe: the sources of a corpus and the mix of their texts.

`DataConfig` describes the texts of pretraining, `InstructionConfig` the records of fine-tuning and
how they become text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.utils.files import expand_path_fields
from gnano.utils.validation import Range, check_field_ranges, reject_unused

SourceKind = Literal["files", "hub", "generator"]

MAX_BAD_SHARE = 0.05  # a wrong column, form or encoding spoils nearly all records, not just a few
FIELDS_BY_KIND: dict[SourceKind, tuple[str, ...]] = {
    "hub": ("repo", "config", "split", "revision"),
    "files": ("files",),
    "generator": ("generator",),
}


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where a source's texts or records are; subclasses say what they are."""

    weight: Annotated[float, Range(0, 1e12)] = 1.0
    kind: SourceKind = "files"  # local files, a Hub data set, or Python code
    files: tuple[str, ...] = ()
    repo: str = ""  # hub: the data set, USER/NAME
    config: str = ""  # hub: its configuration, or a folder in it; empty: all of it
    split: str = "train"  # hub: its split
    revision: str = "main"  # hub: branch, tag or commit; the commit found is kept
    generator: str = ""  # generator: MODULE:OBJECT, a gnano.data.generators.SourceGenerator

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self, "data.sources.*")
        for kind, names in FIELDS_BY_KIND.items():
            if self.kind != kind:
                reject_unused(self, "data.sources.*", names, f"kind is {self.kind!r}")
        if self.kind == "generator":
            check_generator_path(self.generator)
        if self.kind == "hub" and self.repo.count("/") != 1:
            raise ValueError(
                f"A source of kind 'hub' needs repo, USER/NAME of a data set; it is {self.repo!r}."
            )

    @property
    def location(self) -> str:
        """Where its texts or records are stored, for messages."""
        if self.kind == "hub":
            return f"{self.repo} {self.config}".strip()
        return ", ".join(self.files) or self.generator or self.kind


@dataclass(frozen=True, kw_only=True)
class SourceConfig(DataSource):
    """A source of texts for pretraining."""

    # share of the sequences, relative to the weights of the other sources
    weight: Annotated[float, Range(0, 1e12)] = 1.0
    files: tuple[str, ...] = ()  # files: paths, folders, globs; text, JSONL, CSV, Parquet, packed
    column: str = "text"  # column of JSONL, CSV and Parquet files that holds the text
    # files, hub: stop at or within the file that reaches this many tokens; 0: all
    max_tokens: Annotated[int, Range(0)] = 0
    max_bytes: Annotated[int, Range(0)] = 0  # generator: bytes of UTF-8 text to generate
    min_chars: Annotated[int, Range(0)] = 1  # drop documents with fewer characters
    max_chars: Annotated[int, Range(0)] = 0  # drop documents with more characters; 0: no limit

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.max_chars < self.min_chars:
            raise ValueError(
                f"A source's max_chars {self.max_chars} is below its min_chars {self.min_chars}, "
                f"so all documents would be dropped."
            )
        if self.kind == "generator":
            if not self.max_bytes:
                raise ValueError("A source of kind 'generator' needs max_bytes, its text's size.")
            reject_unused(self, "data.sources.*", ("column",), "kind is 'generator'")
            if self.max_tokens > 0:
                raise ValueError("A source of kind 'generator' takes max_bytes, not max_tokens.")
        elif self.max_bytes > 0:
            raise ValueError(f"A source of kind {self.kind!r} takes max_tokens, not max_bytes.")


@dataclass(frozen=True, kw_only=True)
class InstructionSource(DataSource):
    """A source of records for fine-tuning."""

    # how many times its rows come in an epoch; 0.5: half of them, another half each epoch
    weight: Annotated[float, Range(0, 1e12)] = 1.0
    files: tuple[str, ...] = ()  # files: paths, folders or globs; JSONL, a JSON list, CSV, Parquet
    max_records: Annotated[int, Range(0)] = 0  # use only the first records; 0: all


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus of a pretraining run."""

    folder: str = "data/mine"  # folder of the token shards
    tokenizer: str = "gpt2"  # gpt2, bpe-N (trained on this corpus, N entries), or a folder
    # share of the documents held out from training
    heldout_fraction: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.005
    # approximate tokens in a shard file; 2 bytes each, or 4 for more than 65,536 ids
    shard_tokens: Annotated[int, Range(1, 2**31 - 1)] = 2**26
    decontaminate: tuple[str, ...] = ()  # evaluation files; documents sharing 13 words are dropped
    workers: Annotated[int, Range(0, 2**16)] = 0  # processes that tokenize; 0: one per core
    # largest share of a source's records that may be unusable; above it the source is refused
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    keep_downloads: bool = False  # keep the Hub's files after they are tokenized
    packing: Literal["stream", "best-fit"] = "stream"  # split rows anywhere, or between documents
    document_attention_mask: bool = False  # limit attention to each document
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # seed of the order of the sequences
    sources: dict[str, SourceConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_path_fields(self, ("folder", "tokenizer", "decontaminate"))
        check_field_ranges(self, "data")
        _check_weights(self.sources)
        by_folder: dict[str, str] = {}
        for name in self.sources:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(
                    f"The name of source {name!r} becomes a folder: use only letters, digits, - "
                    f"and _."
                )
            if (other := by_folder.setdefault(name.casefold(), name)) != name:
                raise ValueError(
                    f"Sources {other!r} and {name!r} would share one folder on file systems that "
                    f"ignore case, as on macOS: rename one."
                )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source."""
        return {name: source.weight for name, source in self.sources.items()}


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    """The records of a fine-tuning run."""

    kind: Literal["instructions", "preferences"] = "instructions"  # answers, or pairs of answers
    template: str = ""  # alpaca, chatml, plain, a TOML file; empty: that of the base, or alpaca
    # passes over the rows, which set train.steps; 0: train.steps as given
    epochs: Annotated[float, Range(0)] = 3.0
    # share of the questions held out from training
    heldout_fraction: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.02
    packing: bool = True  # several examples in a row, without attention between them
    # largest share of a source's records that may be unusable; above it the source is refused
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    cache_dir: str = "data/hub"  # folder for the Hub's files
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0  # seed of the order of the rows
    sources: dict[str, InstructionSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_path_fields(self, ("template", "cache_dir"))
        check_field_ranges(self, "data")
        _check_weights(self.sources)


def check_generator_path(path: str) -> None:
    """Raise ValueError unless a generator's path has the form MODULE:OBJECT."""
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), name]):
        raise ValueError(
            f"A source of kind 'generator' needs generator, MODULE:OBJECT of Python code; it is "
            f"{path!r}."
        )


def _check_weights(sources: Mapping[str, DataSource]) -> None:
    if sources and not any(source.weight for source in sources.values()):
        raise ValueError("All weights of data.sources are 0; give at least one a weight above 0.")
