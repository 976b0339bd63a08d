"""Merges drafts into the shards that training reads, in the plan's order, without duplicates.

    draft (web, 3) ─▶ keys compared with all kept so far ─▶ web/00003-000.tokens …,
                                                            web/00003-heldout.tokens,
                                                            web/00003.keys, web/00003.json

This is the only part of preparation that depends on more than one task. One process does it in one
order, so keeping the first of equal documents, within a source and across sources, gives the same
shards for any number of workers. Most drafts have no duplicates and are renamed unchanged. The
marker `.json` is written last.

Equal means an equal hash of 64 bits: among 15 million documents, the number of the reference run,
the probability that any two different ones collide is about 6 in a million.
"""

import hashlib
import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnano.data.manifest import (
    Manifest,
    SourceInfo,
    TaskInfo,
    count_bad_records,
    marker_path,
    read_marker,
    write_marker,
)
from gnano.data.prepare.worker_pool import (
    HELDOUT_SHARD,
    KEY_DTYPE,
    SIZE_DTYPE,
    draft_folder,
    load_draft,
)
from gnano.data.shards import (
    OFFSET_DTYPE,
    ShardInfo,
    has_all_shard_files,
    open_shard_file,
)
from gnano.utils.files import atomic_write_bytes

HashKeys = NDArray[np.uint64]
BoolMask = NDArray[np.bool_]


class TaskScheduler:
    """Merges drafts in the plan's order, and adds the finished tasks to `manifest.sources`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.plan = folder, manifest, manifest.plan
        self.unfinished = deque(self.plan.iter_tasks())  # empty when no source needs more
        self.dedup_index = DedupIndex()
        manifest.sources = {name: SourceInfo() for name in self.plan.sources}
        for name in self.plan.sources:
            (folder / name).mkdir(exist_ok=True)

    def advance(self) -> list[tuple[str, int]]:
        """Finish tasks in order, from an earlier process or their drafts; return them."""
        finished_tasks = []
        while self.unfinished:
            source, task = self.unfinished[0]
            plan, info = self.plan.sources[source], self.manifest.sources[source]
            if info.complete:  # its budget is met
                self.unfinished.popleft()
                continue
            folder, drafts = self.folder / source, draft_folder(self.folder, source, task)
            finished = read_marker(folder, task)
            if finished and has_all_task_files(folder, task, finished):
                self.dedup_index.add(np.fromfile(folder / f"{task:05}.keys", KEY_DTYPE))
                draft = None
            else:
                finished = draft = load_draft(drafts)
                if finished is None:
                    break
            # before the merge, so that a user can still correct the task's files
            bad = count_bad_records(plan, [*info.tasks, finished])
            bad.check(self.manifest.max_bad_share, f"Source {source!r}: ")
            if draft:
                finished = merge_draft(drafts, draft, folder, task, self.dedup_index)
            self.manifest.add_task(source, finished)
            if info.complete and not info.tokens:
                dropped = "".join(f", {n:,} {why}" for why, n in info.dropped.items() if n)
                heldout = sum(shard.documents for shard in info.heldout)
                where = plan.repo or f"{plan.tasks[0][0].name}{' …' * (len(plan.tasks) > 1)}"
                raise ValueError(
                    f"Source {source!r} ({where}) has no training text: "
                    f"{info.read:,} documents read{dropped}, {heldout:,} of them held out."
                )
            finished_tasks.append((source, task))
            self.unfinished.popleft()
        return finished_tasks

    def pending_tasks(self) -> list[tuple[str, int]]:
        """Return the unfinished tasks, in order, that the budgets will likely need."""
        needed = {name: self.estimate(name)[0] for name in self.plan.sources}
        return [
            (source, task)
            for source, task in self.unfinished
            if not self.manifest.sources[source].complete and task < needed[source]
        ]

    def estimate(self, source: str) -> tuple[int, int]:
        """Return how many tasks and training tokens the source will likely have."""
        plan, info = self.plan.sources[source], self.manifest.sources[source]
        tasks, tokens = len(info.tasks), info.tokens
        if info.complete:
            return tasks, tokens
        size = sum(file.size for files in plan.tasks[:tasks] for file in files)
        expected_tasks, expected_tokens = plan.estimate(tokens / max(size, 1))
        return max(expected_tasks, tasks + 1), max(expected_tokens, tokens)


@dataclass
class DedupIndex:
    """The keys of all documents kept so far, 8 bytes each, in sorted arrays."""

    # each at least twice as long as the next
    sorted_runs: list[HashKeys] = field(default_factory=list)

    def find_new(self, keys: HashKeys) -> BoolMask:
        """Return a mask of the keys that are new: not in the index, nor earlier in `keys`."""
        firsts = np.zeros(len(keys), dtype=bool)
        firsts[np.unique(keys, return_index=True)[1]] = True
        for run in self.sorted_runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            firsts &= run[places] != keys
        return firsts

    def add(self, keys: HashKeys) -> None:
        """Add the keys of kept documents."""
        runs = self.sorted_runs
        if len(keys):
            runs.append(np.sort(keys))
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            runs[-2:] = [np.sort(np.concatenate(runs[-2:]), kind="stable")]


def has_all_task_files(folder: Path, task: int, info: TaskInfo) -> bool:
    """Return whether all files of a finished task exist with their sizes; they are not read."""
    shards = [*info.shards, info.heldout] if info.heldout else info.shards
    keys = folder / f"{task:05}.keys"
    size = sum(shard.documents for shard in shards) * KEY_DTYPE.itemsize
    has_keys = keys.is_file() and keys.stat().st_size == size
    return has_keys and all(has_all_shard_files(folder, shard) for shard in shards)


def merge_draft(
    drafts: Path, draft: TaskInfo, folder: Path, task: int, dedup_index: DedupIndex
) -> TaskInfo:
    """Move a draft's shards into their source's folder, without duplicates of kept documents."""
    # an earlier attempt's files: the marker first, so that no reader relies on the others
    marker_path(folder, task).unlink(missing_ok=True)
    for path in [*folder.glob(f"{task:05}[-.]*"), *folder.glob(f".{task:05}[-.]*")]:
        if path.suffix in (".tokens", ".docs", ".keys", ".partial"):
            path.unlink()
    assert draft.heldout
    # held-out documents first: a text on both sides is removed from training
    draft_shards = [draft.heldout, *draft.shards]
    keys = np.concatenate(
        [np.fromfile(drafts / f"{shard.name}.keys", KEY_DTYPE) for shard in draft_shards]
    )
    is_new = dedup_index.find_new(keys)
    kept: list[ShardInfo] = []
    lengths = np.zeros(32, dtype=np.int64)
    heldout = None
    start = 0
    for shard in draft_shards:
        keep = is_new[start : start + shard.documents]
        start += shard.documents
        name = f"{task:05}-{HELDOUT_SHARD if shard.name == HELDOUT_SHARD else f'{len(kept):03}'}"
        if not keep.any():
            continue
        moved = _move_shard(drafts, shard, folder, name, keep)
        if shard.name == HELDOUT_SHARD:
            heldout = moved
        else:
            kept.append(moved)
            starts = open_shard_file(folder, moved, "docs", verify=False).astype(np.int64)
            # bin n has the documents of 2^n to 2^(n+1) - 1 tokens
            bins = np.frexp(np.diff(starts, append=moved.tokens))[1] - 1
            lengths += np.bincount(bins, minlength=32)
    atomic_write_bytes(folder / f"{task:05}.keys", keys[is_new].tobytes())
    info = TaskInfo(
        shards=kept,
        heldout=heldout,
        read=draft.read,
        dropped={**draft.dropped, "repeated": int((~is_new).sum())},
        lengths=lengths.tolist(),
        bad=draft.bad,
    )
    write_marker(folder, task, info)
    dedup_index.add(keys[is_new])
    shutil.rmtree(drafts)
    return info


def _move_shard(
    source: Path, shard: ShardInfo, folder: Path, name: str, keep: BoolMask
) -> ShardInfo:
    """Move a shard to its final name with the documents to keep."""
    if keep.all():
        for suffix in ("tokens", "docs"):
            (source / f"{shard.name}.{suffix}").replace(folder / f"{name}.{suffix}")
        return ShardInfo(**{**vars(shard), "name": name})
    # the draft may be of an earlier process, so its hashes are verified
    all_tokens = open_shard_file(source, shard, "tokens")
    all_offsets = open_shard_file(source, shard, "docs")
    sizes = np.fromfile(source / f"{shard.name}.sizes", SIZE_DTYPE)
    lengths = np.diff(all_offsets, append=len(all_tokens)).astype(np.int64)
    tokens = all_tokens[np.repeat(keep, lengths)].astype(shard.dtype).tobytes()
    offsets = (np.cumsum(lengths[keep]) - lengths[keep]).astype(OFFSET_DTYPE).tobytes()
    atomic_write_bytes(folder / f"{name}.tokens", tokens)
    atomic_write_bytes(folder / f"{name}.docs", offsets)
    return ShardInfo(
        name=name,
        tokens=int(lengths[keep].sum()),
        documents=int(keep.sum()),
        bytes=int(sizes[keep].sum(dtype=np.int64)),
        sha256_tokens=hashlib.sha256(tokens).hexdigest(),
        sha256_docs=hashlib.sha256(offsets).hexdigest(),
        id_bytes=shard.id_bytes,
    )
