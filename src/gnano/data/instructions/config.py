"""What is a model tuned on? Records and how they look to it, as a recipe's `[data]` says."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnano.data.bad_records import MAX_BAD_SHARE
from gnano.data.sources import HUB_KEYS, check_use
from gnano.utils.ranges import Range, check_ranges

Kind = Literal["files", "hub", "python"]


@dataclass(frozen=True, kw_only=True)
class InstructionSource:
    weight: float = 1.0  # how many times an epoch its rows come; 0.5: another half each time
    kind: Kind = "files"  # files of yours, a Hub data set, or questions about this Python's library
    files: tuple[str, ...] = ()  # files: paths, folders or globs; JSONL, a JSON list, CSV, Parquet
    repo: str = ""  # hub: the data set, USER/NAME
    config: str = ""  # hub: its configuration, or a folder in it; empty: all of it
    split: str = "train"  # hub: which split
    revision: str = "main"  # hub: branch, tag or commit; the commit found is kept
    max_records: int = 0  # take the first so many; 0: all

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"A source's weight is {self.weight}; it must be 0 or more.")
        if self.max_records < 0:
            raise ValueError(f"A source's max_records is {self.max_records}; use 0 or more.")
        if self.kind == "hub" and self.repo.count("/") != 1:
            raise ValueError(
                f"A source of kind 'hub' needs repo, USER/NAME of a data set; it is {self.repo!r}."
            )
        check_use(self, {"files": ("files",), **HUB_KEYS})

    @property
    def where(self) -> str:
        """Where its records lie, for messages."""
        if self.kind == "hub":
            return f"{self.repo} {self.config}".strip()
        return ", ".join(self.files) or "this Python's library"


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    kind: Literal["instructions", "preferences"] = "instructions"  # answers, or pairs of them
    template: str = ""  # alpaca, chatml, plain, a TOML file; empty: the base's own, or alpaca
    epochs: float = 3.0  # passes over the rows: train.steps follow from it; 0: they are as given
    warmup: float = 0.05  # share of those steps: train.schedule.warmup follows from it, likewise
    heldout: float = 0.02  # share of the questions kept from training
    packing: bool = True  # several examples in a row, each on its own
    # a source is refused where a greater share of its records cannot be used
    max_bad_share: Annotated[float, Range(0, 1)] = MAX_BAD_SHARE
    downloads: str = "data/hub"  # where the Hub's files are kept
    seed: int = 0  # of the order in which rows are read
    sources: dict[str, InstructionSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, "data")
        if not 0 <= self.heldout < 1:
            raise ValueError(f"data.heldout is {self.heldout}; it is a share, in [0, 1).")
        if not 0 <= self.epochs < math.inf:
            raise ValueError(f"data.epochs is {self.epochs}; use 0 (train.steps) or more.")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"data.warmup is {self.warmup}; it is a share, in [0, 1].")
        if self.seed < 0:
            raise ValueError(f"data.seed is {self.seed}; use 0 or more.")
        if self.sources and not sum(source.weight for source in self.sources.values()):
            raise ValueError("All weights of data.sources are 0; give at least one more.")
