"""Merges the tasks' drafts in the plan's order and lists the tasks that are still needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from gnano.data.manifest import Manifest, SourceInfo, TaskInfo, summarize_bad_records
from gnano.data.prepare.merge_shards import DedupIndex, load_finished_task, merge_draft
from gnano.data.prepare.tokenize_task import TaskDraft, draft_folder
from gnano.data.record_errors import format_refusal


class TaskScheduler:
    """Merges drafts in the plan's order, and adds the finished tasks to `manifest.sources`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.plan = folder, manifest, manifest.plan
        self.task_order = list(self.plan.iter_tasks())
        self.dedup_index = DedupIndex()
        self.position = 0  # index in `task_order`
        manifest.sources = {name: SourceInfo() for name in self.plan.sources}
        for name in self.plan.sources:
            (folder / name).mkdir(exist_ok=True)

    @property
    def is_complete(self) -> bool:
        """Whether all sources have all tasks that they need."""
        return self.position == len(self.task_order)

    def advance(self) -> Iterator[tuple[str, int]]:
        """Finish tasks in order as far as there are drafts, and yield them."""
        while self.position < len(self.task_order):
            source, task = self.task_order[self.position]
            if not self.manifest.sources[source].complete:
                if not self._finish_task(source, task):
                    return
                yield source, task
            self.position += 1

    def pending_tasks(self) -> list[tuple[str, int]]:
        """Return the unfinished tasks, in order, that the budgets will likely need."""
        needed = {name: self.estimate_tasks(name) for name in self.plan.sources}
        return [
            (source, task)
            for source, task in self.task_order[self.position :]
            if not self.manifest.sources[source].complete and task < needed[source]
        ]

    def estimate_tasks(self, source: str) -> int:
        """Return how many tasks the source will likely need."""
        info = self.manifest.sources[source]
        if info.complete:
            return len(info.tasks)
        estimate = self.plan.sources[source].estimate_tasks(self._tokens_per_byte(source))
        return max(estimate, len(info.tasks) + 1)

    def estimate_tokens(self, source: str) -> int:
        """Return how many training tokens the source will likely have."""
        info = self.manifest.sources[source]
        if info.complete:
            return info.tokens
        estimate = self.plan.sources[source].estimate_tokens(self._tokens_per_byte(source))
        return max(estimate, info.tokens)

    def _tokens_per_byte(self, source: str) -> float | None:
        """Return the tokens kept per byte of the finished files; None before the first ones."""
        info = self.manifest.sources[source]
        tasks = self.plan.sources[source].tasks[: len(info.tasks)]
        size = sum(file.size for task in tasks for file in task)
        return info.tokens / size if info.tokens and size else None

    def _finish_task(self, source: str, task: int) -> bool:
        """Finish a task from its draft or an earlier process; return False without either."""
        plan, info = self.plan.sources[source], self.manifest.sources[source]
        source_folder = self.folder / source
        finished = load_finished_task(source_folder, task, self.dedup_index)
        if finished is None:
            folder = draft_folder(self.folder, source, task)
            draft = TaskDraft.load(folder)
            if draft is None:
                return False
            # before the merge, so that a user can still correct the task's files
            self._check_bad_records(source, [*info.tasks, TaskInfo(**vars(draft), lengths=[])])
            finished = merge_draft(folder, draft, source_folder, task, self.dedup_index)
        else:
            self._check_bad_records(source, [*info.tasks, finished])
        info.tasks.append(finished)
        if len(info.tasks) == len(plan.tasks) or plan.is_budget_reached(info.tokens):
            self._complete_source(source, info)
        return True

    def _check_bad_records(self, source: str, tasks: Sequence[TaskInfo]) -> None:
        """Raise ValueError if a larger share of the records is bad than the recipe allows."""
        share, notice = summarize_bad_records(self.plan.sources[source], tasks)
        if share > self.manifest.max_bad_share:
            raise ValueError(
                format_refusal(f"Source {source!r}: {notice}", self.manifest.max_bad_share)
            )

    def _complete_source(self, source: str, info: SourceInfo) -> None:
        self.manifest.sources[source] = SourceInfo(tasks=info.tasks, complete=True)
        if not info.tokens:
            plan = self.plan.sources[source]
            dropped = "".join(f", {n:,} {why}" for why, n in info.dropped.items() if n)
            heldout = sum(shard.documents for shard in info.heldout)
            where = plan.repo or f"{plan.tasks[0][0].name}{' …' * (len(plan.tasks) > 1)}"
            raise ValueError(
                f"Source {source!r} ({where}) has no training text: "
                f"{info.read:,} documents read{dropped}, {heldout:,} of them held out."
            )
