"""The settings of an evaluation, for `gnano eval` and `gnano compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gnano.utils.text import expand_path_fields
from gnano.utils.validation import Range, check_field_ranges

ALL_TASKS = "all"
MAX_SHOTS, MAX_BATCH_SIZE = 1_000, 65_536
AddBos = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Tasks and texts to evaluate, and how."""

    tasks: tuple[str, ...] = ()  # names, all or none; default: all, or those of files
    files: tuple[str, ...] = ()  # items that replace the Hub's: TASK….jsonl, or TASK=PATH
    limit: Annotated[int, Range(0)] = 0  # items per task, spread over all of it; 0: all
    shots: Annotated[int, Range(0, MAX_SHOTS)] = 0  # solved examples before each item
    data: Path | None = None  # data folder whose held-out text is evaluated; default: the run's
    text: tuple[Path, ...] = ()  # text files to evaluate as well
    # most tokens of each source's held-out text; 0: all
    heldout_tokens: Annotated[int, Range(0)] = 1_000_000
    # search the data's training shards for the items (runs of 13 words)
    check_contamination: bool = False
    # texts computed in one batch; more are faster on a GPU
    batch_size: Annotated[int, Range(1, MAX_BATCH_SIZE)] = 32
    add_bos: AddBos = "auto"  # start texts with end-of-text; auto: as the model was trained
    cache_dir: Path = Path("data/hub")  # folder for the Hub's files

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks, with the default filled in."""
        return self.tasks or (() if self.files else (ALL_TASKS,))

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self)
