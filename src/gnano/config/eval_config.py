"""What is a model asked? The settings of `gnano eval` and `gnano compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gnano.utils.text import expand_path_fields
from gnano.utils.validation import Range, check_field_ranges

ALL_TASKS = "all"
MAX_SHOTS, MAX_BATCH_SIZE = 1_000, 65_536
# does a text begin with the token that begins a document?
AddBos = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    tasks: tuple[str, ...] = ()  # names, all or none; by default all, or those of files
    files: tuple[str, ...] = ()  # items in the place of the Hub's: TASK….jsonl, or TASK=PATH
    limit: Annotated[int, Range(0)] = 0  # items of a task, spread over all it has; 0: all
    shots: Annotated[int, Range(0, MAX_SHOTS)] = 0  # solved examples before each item
    data: Path | None = None  # prepared folder whose held-out text is measured; else the run's own
    text: tuple[Path, ...] = ()  # files of text to measure as well
    # of each source's held-out text at most; 0: all
    heldout_tokens: Annotated[int, Range(0)] = 1_000_000
    # look in the data's training shards for the items (runs of 13 words)
    check_contamination: bool = False
    # texts computed side by side; more are faster on a GPU
    batch_size: Annotated[int, Range(1, MAX_BATCH_SIZE)] = 32
    add_bos: AddBos = "auto"  # begin texts with end-of-text; auto: as the model was trained
    cache_dir: Path = Path("data/hub")  # where the Hub's files are kept

    @property
    def task_names(self) -> tuple[str, ...]:
        """Of the tasks, the default among them."""
        return self.tasks or (() if self.files else (ALL_TASKS,))

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self)
