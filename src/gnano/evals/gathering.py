"""Where do the items come from? Files that are named, else the Hub, which is asked once.

--files evals/hellaswag_val.jsonl   a known task, by the beginning of the file's name
--files mine=questions.jsonl        a task of your own
--tasks hellaswag arc_easy          the Hub's, kept in data/hub
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gnano.data import InstructionSource
from gnano.data.instructions import files_of, read_records
from gnano.evals.asked import Asked
from gnano.evals.items import TASKS, Item, Task, read_item
from gnano.utils.paths import expanded

DOWNLOADS = Asked.downloads
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sheet:
    """A task's items, ready to be asked."""

    task: str
    items: tuple[Item, ...]
    shots: int = 0  # solved examples before each

    @property
    def known(self) -> Task | None:
        return TASKS.get(self.task)

    @property
    def normalised(self) -> bool:
        """Does the length of an answer mean anything?"""
        choices = any(len(item.options) > 1 for item in self.items)
        return choices and (self.known is None or self.known.normalised)

    @property
    def title(self) -> str:
        return self.known.title if self.known else self.task


def gather(
    tasks: Sequence[str],
    files: Sequence[str] = (),
    limit: int = 0,
    shots: int = 0,
    downloads: Path = DOWNLOADS,
    say: Say = lambda _: None,
) -> list[Sheet]:
    """The items of these tasks, and of those that the files are of.

    `limit`: so many of each task, spread over all of them (0: all). `shots`: solved examples
    before each item, the first of the training split, or of the file itself. Raises ValueError or
    OSError, in a sentence, for what is not there or is no item.
    """
    named = dict(map(task_and_path, files))
    wanted = list(dict.fromkeys([*tasks, *named]))
    return [_sheet(name, named.get(name), limit, shots, downloads, say) for name in wanted]


def task_and_path(file: str) -> tuple[str, str]:
    """Task and path of what is written as TASK=PATH, or as a path that says its task."""
    name, equals, path = file.partition("=")
    if equals and "/" not in name:
        return name, expanded(path)
    found = [task for task in TASKS if Path(file).name.startswith(task)]
    if not found:
        raise ValueError(
            f"{file} does not say which task its items are of; write it as TASK={file}, with one "
            f"of {', '.join(TASKS)} or a name of your own."
        )
    return found[0], file


def _sheet(name: str, path: str | None, limit: int, shots: int, downloads: Path, say: Say) -> Sheet:
    task = TASKS.get(name)
    if task is None and path is None:
        raise ValueError(
            f"There is no task {name!r}; there are {', '.join(TASKS)}, or name a file of your own "
            f"items: --files {name}=PATH."
        )
    make = partial(read_item, task)

    def of(split: str) -> list[Item]:
        paths = [path] if path is not None else []
        if task is not None and path is None:
            source = InstructionSource(kind="hub", repo=task.repo, config=task.config, split=split)
            paths = files_of(source, downloads, say)
        found: list[Item] = read_records(paths, make, max_bad_share=0).records
        return found

    say(f"reading {name}")
    items = of(task.split if task else "")
    examples: list[Item] = []
    if shots:
        own = path is not None or task is None or not task.examples
        examples = items if own else of(task.examples if task else "")
        if len(examples) < shots + own:
            raise ValueError(f"{name} has {len(examples):,} items, too few for {shots} shots.")
        items = [_after(item, examples, shots) for item in items]
    whole = len(items)
    if limit and limit < whole:
        items = [items[number * whole // limit] for number in range(limit)]
    return Sheet(name, tuple(items), shots)


def _after(item: Item, examples: Sequence[Item], shots: int) -> Item:
    """The item behind the first examples, of which it is none itself."""
    others = [example for example in examples[: shots + 1] if example != item][:shots]
    return item.after("".join(f"{example.solved}\n\n" for example in others))
