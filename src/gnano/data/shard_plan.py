"""The plan of a data folder: everything that determines the bytes of its shards.

The plan is fixed before any work is done and never changes: tokenizer, split, each source's files
with their sizes and contents, budgets and limits. Weights are not part of it, because they apply
when reading. Its fingerprint therefore identifies the data before it exists.

    sequence:  web 0 · code 0 · synthetic 0 · web 1 · code 1 · web 2 …

Tasks are started in one fixed sequence in which the sources advance together, so that training may
start early, and so that "an earlier document" means the same for every number of workers.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Self

from gnano.data.source_files import InputFile, SourceFiles, TaskFiles

# estimates until the first files have been tokenized; 0.25 for text
TOKENS_PER_BYTE = {".parquet": 0.8, ".gz": 0.8, ".zst": 0.9}


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """One source: where its text comes from and which part of it is used."""

    kind: str
    repo: str
    config: str
    split: str
    revision: str  # as requested
    commit: str  # the revision's on the Hub
    column: str
    max_tokens: int
    max_bytes: int
    min_chars: int
    max_chars: int
    tasks: tuple[TaskFiles, ...]

    @classmethod
    def from_files(cls, source_files: SourceFiles) -> Self:
        """Make the plan of a source whose files were found."""
        settings = asdict(source_files.source)
        for key in ("weight", "files", "generator"):  # tasks name the last two
            del settings[key]
        return cls(**settings, commit=source_files.commit, tasks=source_files.tasks)

    def is_budget_reached(self, tokens: int) -> bool:
        """Return whether this many tokens reach the budget."""
        return bool(self.max_tokens) and tokens >= self.max_tokens

    def estimate_tokens(self, tokens_per_byte: float | None = None) -> int:
        """Estimate the source's tokens, at a measured or a default rate."""
        tokens = sum(estimate_task_tokens(task, tokens_per_byte) for task in self.tasks)
        return min(tokens, self.max_tokens) if self.max_tokens else tokens

    def estimate_tasks(self, tokens_per_byte: float | None = None) -> int:
        """Estimate how many tasks the budget needs; all of them without a budget."""
        tokens = count = 0
        for task in self.tasks:
            if self.is_budget_reached(tokens):
                break
            tokens += estimate_task_tokens(task, tokens_per_byte)
            count += 1
        return count


def estimate_task_tokens(task: TaskFiles, tokens_per_byte: float | None = None) -> int:
    """Estimate the tokens of a task, at a measured or a default rate."""
    return sum(
        round(f.size * (tokens_per_byte or TOKENS_PER_BYTE.get(PurePath(f.name).suffix, 0.25)))
        for f in task
    )


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The plan of all sources."""

    tokenizer: str
    heldout: float
    shard_tokens: int
    decontaminate: tuple[InputFile, ...]
    sources: dict[str, SourcePlan]

    def iter_tasks(self) -> Iterator[tuple[str, int]]:
        """Yield every task of every source; the sources advance evenly towards their budgets."""
        ordered = []
        for order, (name, source) in enumerate(self.sources.items()):
            expected = source.estimate_tasks()
            ordered += [((n + 0.5) / expected, order, n, name) for n in range(len(source.tasks))]
        for _, _, number, name in sorted(ordered):
            yield name, number

    def list_differences(self, other: "ShardPlan") -> list[str]:
        """Return the recipe keys in which another plan differs."""
        ours, theirs = asdict(self), asdict(other)
        mine, yours = ours.pop("sources"), theirs.pop("sources")
        found = [key for key in ours if ours[key] != theirs[key]]
        if list(mine) != list(yours):
            return [*found, f"sources ({', '.join(yours)})"]
        for name, source in mine.items():
            tasks_key = "generator" if source["kind"] == "generator" else "files"
            found += [
                f"sources.{name}.{tasks_key if key == 'tasks' else key}"
                for key in source
                if source[key] != yours[name][key]
            ]
        return found

    def is_compatible_with(self, other: "ShardPlan", finished_tasks: dict[str, int]) -> bool:
        """Return whether another plan differs only in files that no finished task has read."""
        allowed = {f"sources.{name}.files" for name in self.sources}
        if not allowed.issuperset(self.list_differences(other)):
            return False
        counts = {name: finished_tasks.get(name, 0) for name in self.sources}
        # sizes determine how the tasks of a budget are spread, and so their sequence
        return list(self.iter_tasks()) == list(other.iter_tasks()) and all(
            source.tasks[: counts[name]] == other.sources[name].tasks[: counts[name]]
            for name, source in self.sources.items()
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Parse the plan of a manifest."""
        sources = {}
        for name, source in content["sources"].items():
            tasks = tuple(tuple(InputFile(*file) for file in task) for task in source["tasks"])
            sources[name] = SourcePlan(**{**source, "tasks": tasks})
        files = tuple(InputFile(*file) for file in content["decontaminate"])
        return cls(**{**content, "decontaminate": files, "sources": sources})
