"""From drafts to what training reads: in the plan's sequence, documents seen before dropped.

    draft (web, 3) ─▶ keys against all that were kept before ─▶ web/00003-000.tokens … ,
                                                               web/00003-heldout.tokens,
                                                               web/00003.keys, web/00003.json

This is the only part of preparation that looks at more than one task, and it is done by one
process in one order: so "the first of equal documents stays", within a source and across
sources, gives the same shards however many workers made the drafts. Most drafts have no
repeats and are renamed as they are. The marker `.json` is written last.

Equal means an equal hash of 64 bits: among 15 million documents, the number of the
reference run, the chance that any two unequal ones collide is about 6 in a million.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnano.data.manifest import TaskInfo, marker_path, read_marker, write_marker
from gnano.data.prepare.tokenize_task import HELDOUT_SHARD, KEY_DTYPE, SIZE_DTYPE, TaskDraft
from gnano.data.shards import (
    OFFSET_DTYPE,
    TOKEN_DTYPE,
    ShardInfo,
    has_all_shard_files,
    open_offsets,
    open_tokens,
)
from gnano.utils.atomic_io import atomic_write_bytes

HashKeys = NDArray[np.uint64]
BoolMask = NDArray[np.bool_]


class DedupIndex:
    """The keys of all documents kept so far, 8 bytes each."""

    def __init__(self) -> None:
        self.sorted_runs: list[HashKeys] = []  # sorted; each at least twice as long as the next

    def find_new(self, keys: HashKeys) -> BoolMask:
        """Which of these are there for the first time, here and altogether."""
        firsts = np.zeros(len(keys), dtype=bool)
        firsts[np.unique(keys, return_index=True)[1]] = True
        for run in self.sorted_runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            firsts &= run[places] != keys
        return firsts

    def add(self, keys: HashKeys) -> None:
        if len(keys):
            self.sorted_runs.append(np.sort(keys))
        while len(self.sorted_runs) > 1 and len(self.sorted_runs[-2]) < 2 * len(
            self.sorted_runs[-1]
        ):
            self.sorted_runs[-2:] = [np.sort(np.concatenate(self.sorted_runs[-2:]), kind="stable")]


def load_finished_task(folder: Path, task: int, dedup_index: DedupIndex) -> TaskInfo | None:
    """A task that was finished before and is whole; its keys are added to those seen."""
    info = read_marker(folder, task)
    if info is None or not has_all_task_files(folder, task, info):
        return None
    dedup_index.add(np.fromfile(_keys_path(folder, task), KEY_DTYPE))
    return info


def has_all_task_files(folder: Path, task: int, info: TaskInfo) -> bool:
    """All files of a finished task are there with their sizes; a glance, as in `is_whole`."""
    shards = [*info.shards, info.heldout] if info.heldout else info.shards
    keys = _keys_path(folder, task)
    size = sum(shard.documents for shard in shards) * KEY_DTYPE.itemsize
    whole = keys.is_file() and keys.stat().st_size == size
    return whole and all(has_all_shard_files(folder, shard) for shard in shards)


def merge_draft(
    draft_folder: Path, draft: TaskDraft, folder: Path, task: int, dedup_index: DedupIndex
) -> TaskInfo:
    """Move a draft's shards into their source's folder, without the documents seen before."""
    remove_task(folder, task)
    keys = {
        s.name: np.fromfile(draft_folder / f"{s.name}.keys", KEY_DTYPE)
        for s in _draft_shards(draft)
    }
    everything = np.concatenate(list(keys.values()))
    fresh = dedup_index.find_new(everything)
    kept: list[ShardInfo] = []
    lengths = np.zeros(32, dtype=np.int64)
    heldout = None
    start = 0
    for shard in _draft_shards(draft):
        keep = fresh[start : start + shard.documents]
        start += shard.documents
        name = f"{task:05}-{HELDOUT_SHARD if shard.name == HELDOUT_SHARD else f'{len(kept):03}'}"
        moved = _move_shard(draft_folder, shard, folder, name, keep)
        if moved and shard.name == HELDOUT_SHARD:
            heldout = moved
        elif moved:
            kept.append(moved)
            lengths += _length_histogram(folder, moved)
    atomic_write_bytes(_keys_path(folder, task), everything[fresh].tobytes())
    info = TaskInfo(
        shards=kept,
        heldout=heldout,
        read=draft.read,
        dropped={**draft.dropped, "repeated": int((~fresh).sum())},
        lengths=lengths.tolist(),
        bad=draft.bad,
    )
    write_marker(folder, task, info)
    dedup_index.add(everything[fresh])
    shutil.rmtree(draft_folder)
    return info


def remove_task(folder: Path, task: int) -> None:
    """Take a task out, its marker first, so that no reader counts on what goes next."""
    marker_path(folder, task).unlink(missing_ok=True)
    for path in [*folder.glob(f"{task:05}[-.]*"), *folder.glob(f".{task:05}[-.]*")]:
        if path.suffix in (".tokens", ".docs", ".keys", ".partial"):
            path.unlink()


def _draft_shards(draft: TaskDraft) -> list[ShardInfo]:
    # held-out documents first: where a text is on both sides, training goes without it
    return [draft.heldout, *draft.shards]


def _keys_path(folder: Path, task: int) -> Path:
    return folder / f"{task:05}.keys"


def _move_shard(
    source: Path, shard: ShardInfo, folder: Path, name: str, keep: BoolMask
) -> ShardInfo | None:
    """The shard under its final name, with the documents to keep; None if there are none."""
    if not keep.any():
        return None
    if keep.all():
        for ending in ("tokens", "docs"):
            (source / f"{shard.name}.{ending}").replace(folder / f"{name}.{ending}")
        return ShardInfo(**{**vars(shard), "name": name})
    # the draft may be of an earlier process: what is read again is checked again
    tokens, starts = open_tokens(source, shard), open_offsets(source, shard)
    sizes = np.fromfile(source / f"{shard.name}.sizes", SIZE_DTYPE)
    lengths = np.diff(starts, append=len(tokens)).astype(np.int64)
    left = tokens[np.repeat(keep, lengths)].astype(TOKEN_DTYPE).tobytes()
    begins = (np.cumsum(lengths[keep]) - lengths[keep]).astype(OFFSET_DTYPE).tobytes()
    atomic_write_bytes(folder / f"{name}.tokens", left)
    atomic_write_bytes(folder / f"{name}.docs", begins)
    return ShardInfo(
        name=name,
        tokens=int(lengths[keep].sum()),
        documents=int(keep.sum()),
        bytes=int(sizes[keep].sum(dtype=np.int64)),
        sha256_tokens=hashlib.sha256(left).hexdigest(),
        sha256_docs=hashlib.sha256(begins).hexdigest(),
    )


def _length_histogram(folder: Path, shard: ShardInfo) -> NDArray[np.int64]:
    starts = open_offsets(folder, shard, verify=False).astype(np.int64)
    lengths = np.diff(starts, append=shard.tokens)
    return np.bincount(np.frexp(lengths)[1] - 1, minlength=32)
