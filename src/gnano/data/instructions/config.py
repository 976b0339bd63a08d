"""What is a model tuned on? Records and how they look to it, as a recipe's `[data]` says."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.data.bad_records import MAX_BAD_SHARE
from gnano.data.generators import check_generator_path
from gnano.utils.paths import expand_path_fields
from gnano.utils.ranges import Range, check_field_ranges
from gnano.utils.unused import reject_unused

InstructionSourceKind = Literal["files", "hub", "generator"]


@dataclass(frozen=True, kw_only=True)
class InstructionSource:
    # how many times an epoch its rows come; 0.5: another half each time
    weight: Annotated[float, Range(0, 1e12)] = 1.0
    kind: InstructionSourceKind = (
        "files"  # files of yours, a Hub data set, or Python code that writes records
    )
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
        expand_path_fields(self, ("template", "downloads"))
        check_field_ranges(self, "data")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one more.")
