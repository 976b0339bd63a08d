"""Finishes tasks in the plan's order and tells which ones are still needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from gnano.data.bad_records import refusal
from gnano.data.manifest import Manifest, SourceInfo, TaskInfo, bad_records
from gnano.data.preparing.finishing import Seen, finish, finished
from gnano.data.preparing.tokenizing import Draft, draft_folder


class Scheduler:
    """Finishes drafts in the plan's sequence and knows which ones are wanted.

    Fills `manifest.sources` as it goes.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.plan = folder, manifest, manifest.plan
        self.sequence = list(self.plan.sequence())
        self.seen = Seen()
        self.next = 0  # place in the sequence
        manifest.sources = {name: SourceInfo() for name in self.plan.sources}
        for name in self.plan.sources:
            (folder / name).mkdir(exist_ok=True)

    @property
    def complete(self) -> bool:
        return self.next == len(self.sequence)

    def advance(self) -> Iterator[tuple[str, int]]:
        """Finish every task whose turn it is, as far as there are drafts; yields those done."""
        while self.next < len(self.sequence):
            source, task = self.sequence[self.next]
            if not self.manifest.sources[source].complete:
                if not self._finish(source, task):
                    return
                yield source, task
            self.next += 1

    def wanted(self) -> list[tuple[str, int]]:
        """Tasks not finished, in their sequence: those that the budgets will likely need."""
        needed = {name: self.needed(name) for name in self.plan.sources}
        return [
            (source, task)
            for source, task in self.sequence[self.next :]
            if not self.manifest.sources[source].complete and task < needed[source]
        ]

    def needed(self, source: str) -> int:
        """How many tasks the source will likely take."""
        info = self.manifest.sources[source]
        if info.complete:
            return len(info.tasks)
        return max(
            self.plan.sources[source].expected_tasks(self._rate(source)), len(info.tasks) + 1
        )

    def expected_tokens(self, source: str) -> int:
        """How many training tokens the source will likely have."""
        info = self.manifest.sources[source]
        if info.complete:
            return info.tokens
        return max(self.plan.sources[source].expected_tokens(self._rate(source)), info.tokens)

    def _rate(self, source: str) -> float | None:
        """Tokens kept per byte of the files so far: what was dropped is in it."""
        info = self.manifest.sources[source]
        tasks = self.plan.sources[source].tasks[: len(info.tasks)]
        size = sum(file.size for task in tasks for file in task)
        return info.tokens / size if info.tokens and size else None

    def _finish(self, source: str, task: int) -> bool:
        plan, info = self.plan.sources[source], self.manifest.sources[source]
        home = self.folder / source
        done = finished(home, task, self.seen)
        if done is None:
            folder = draft_folder(self.folder, source, task)
            draft = Draft.load(folder)
            if draft is None:
                return False
            # before it is finished, so that its files may still be mended
            self._check(source, [*info.tasks, TaskInfo(**vars(draft), lengths=[])])
            done = finish(folder, draft, home, task, self.seen)
        else:
            self._check(source, [*info.tasks, done])
        info.tasks.append(done)
        if len(info.tasks) == len(plan.tasks) or plan.enough(info.tokens):
            self._end(source, info)
        return True

    def _check(self, source: str, tasks: Sequence[TaskInfo]) -> None:
        """Are more records bad than the recipe allows?"""
        most = self.manifest.max_bad_share
        share, notice = bad_records(self.plan.sources[source], tasks)
        if share > most:
            raise ValueError(refusal(f"Source {source!r}: {notice}", most))

    def _end(self, source: str, info: SourceInfo) -> None:
        self.manifest.sources[source] = SourceInfo(tasks=info.tasks, complete=True)
        if not info.tokens:
            plan = self.plan.sources[source]
            dropped = "".join(f", {n:,} {why}" for why, n in info.dropped.items() if n)
            heldout = sum(shard.documents for shard in info.heldout)
            where = plan.repo or f"{plan.tasks[0][0].name}{' …' * (len(plan.tasks) > 1)}"
            raise ValueError(
                f"Source {source!r} ({where}) gives no training text: "
                f"{info.read:,} documents read{dropped}, {heldout:,} of them held out."
            )
