"""Merges drafts into the shards that training reads, without duplicate documents.

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
from gnano.utils.files import atomic_write_bytes

HashKeys = NDArray[np.uint64]
BoolMask = NDArray[np.bool_]


class DedupIndex:
    """The keys of all documents kept so far, 8 bytes each, in sorted arrays."""

    def __init__(self) -> None:
        self.sorted_runs: list[HashKeys] = []  # sorted; each at least twice as long as the next

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


def load_finished_task(folder: Path, task: int, dedup_index: DedupIndex) -> TaskInfo | None:
    """Return a task that an earlier process finished, or None; add its keys to the index."""
    info = read_marker(folder, task)
    if info is None or not has_all_task_files(folder, task, info):
        return None
    dedup_index.add(np.fromfile(_keys_path(folder, task), KEY_DTYPE))
    return info


def has_all_task_files(folder: Path, task: int, info: TaskInfo) -> bool:
    """Return whether all files of a finished task exist with their sizes; they are not read."""
    shards = [*info.shards, info.heldout] if info.heldout else info.shards
    keys = _keys_path(folder, task)
    size = sum(shard.documents for shard in shards) * KEY_DTYPE.itemsize
    has_keys = keys.is_file() and keys.stat().st_size == size
    return has_keys and all(has_all_shard_files(folder, shard) for shard in shards)


def merge_draft(
    draft_folder: Path, draft: TaskDraft, folder: Path, task: int, dedup_index: DedupIndex
) -> TaskInfo:
    """Move a draft's shards into their source's folder, without duplicates of kept documents."""
    remove_task(folder, task)
    # held-out documents first: a text on both sides is removed from training
    draft_shards = [draft.heldout, *draft.shards]
    keys = np.concatenate(
        [np.fromfile(draft_folder / f"{shard.name}.keys", KEY_DTYPE) for shard in draft_shards]
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
        moved = _move_shard(draft_folder, shard, folder, name, keep)
        if moved and shard.name == HELDOUT_SHARD:
            heldout = moved
        elif moved:
            kept.append(moved)
            lengths += _length_histogram(folder, moved)
    atomic_write_bytes(_keys_path(folder, task), keys[is_new].tobytes())
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
    shutil.rmtree(draft_folder)
    return info


def remove_task(folder: Path, task: int) -> None:
    """Delete a task's files, its marker first, so that no reader relies on the others."""
    marker_path(folder, task).unlink(missing_ok=True)
    for path in [*folder.glob(f"{task:05}[-.]*"), *folder.glob(f".{task:05}[-.]*")]:
        if path.suffix in (".tokens", ".docs", ".keys", ".partial"):
            path.unlink()


def _keys_path(folder: Path, task: int) -> Path:
    return folder / f"{task:05}.keys"


def _move_shard(
    source: Path, shard: ShardInfo, folder: Path, name: str, keep: BoolMask
) -> ShardInfo | None:
    """Move a shard to its final name with the documents to keep; None if there are none."""
    if not keep.any():
        return None
    if keep.all():
        for suffix in ("tokens", "docs"):
            (source / f"{shard.name}.{suffix}").replace(folder / f"{name}.{suffix}")
        return ShardInfo(**{**vars(shard), "name": name})
    # the draft may be of an earlier process, so these functions verify its hashes
    all_tokens, all_offsets = open_tokens(source, shard), open_offsets(source, shard)
    sizes = np.fromfile(source / f"{shard.name}.sizes", SIZE_DTYPE)
    lengths = np.diff(all_offsets, append=len(all_tokens)).astype(np.int64)
    tokens = all_tokens[np.repeat(keep, lengths)].astype(TOKEN_DTYPE).tobytes()
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
    )


def _length_histogram(folder: Path, shard: ShardInfo) -> NDArray[np.int64]:
    """Count documents by length: bin n has those of 2^n to 2^(n+1) - 1 tokens."""
    offsets = open_offsets(folder, shard, verify=False).astype(np.int64)
    lengths = np.diff(offsets, append=shard.tokens)
    return np.bincount(np.frexp(lengths)[1] - 1, minlength=32)
