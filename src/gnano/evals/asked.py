"""What is a model asked? The settings of `gnano eval` and `gnano compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gnano.utils.paths import expand_user
from gnano.utils.ranges import Range, check_ranges

ALL = "all"
MOST_SHOTS, MOST_BATCH = 1_000, 65_536
# does a text begin with the token that begins a document?
Start = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    tasks: tuple[str, ...] = ()  # names, all or none; by default all, or those of files
    files: tuple[str, ...] = ()  # items in the place of the Hub's: TASK….jsonl, or TASK=PATH
    limit: Annotated[int, Range(0)] = 0  # items of a task, spread over all it has; 0: all
    shots: Annotated[int, Range(0, MOST_SHOTS)] = 0  # solved examples before each item
    data: Path | None = None  # prepared folder whose held-out text is measured; else the run's own
    text: tuple[Path, ...] = ()  # files of text to measure as well
    # of each source's held-out text at most; 0: all
    heldout_tokens: Annotated[int, Range(0)] = 1_000_000
    overlap: bool = False  # look in the data's training shards for the items (runs of 13 words)
    # texts computed side by side; more are faster on a GPU
    batch: Annotated[int, Range(1, MOST_BATCH)] = 32
    start: Start = "auto"  # begin texts with end-of-text; auto: as the model was trained
    downloads: Path = Path("data/hub")  # where the Hub's files are kept

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, the default among them."""
        return self.tasks or (() if self.files else (ALL,))

    def __post_init__(self) -> None:
        expand_user(self, ("files",))
        check_ranges(self)
