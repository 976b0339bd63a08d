"""Tokenizes one task into a draft: shards that may still repeat documents of other tasks.

    files ─▶ documents ─▶ length limits, decontamination ─▶ held-out split ─▶ tokenizer ─▶ draft

A draft depends only on its task and the plan, never on other tasks, so any process may make it at
any time. Each shard comes with its documents' keys (hashes of their texts) and sizes, with which
`merge_shards` removes duplicates. A draft is written to a temporary folder and renamed when it is
complete.
"""

import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.manifest import is_heldout, text_position
from gnano.data.readers import Document
from gnano.data.record_errors import BadRecordCounter
from gnano.data.shards import ShardInfo, ShardWriter, has_all_shard_files
from gnano.data.source_files import read_task_documents
from gnano.utils.files import atomic_write_bytes, atomic_write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gnano.data.ngram_overlap import DecontaminationFilter
    from gnano.tokenizer.bpe import Tokenizer


KEY_DTYPE = np.dtype("<u8")
SIZE_DTYPE = np.dtype("<u4")
MIN_SHARD_TOKENS = 2**16  # a task's last shard is not shorter, unless the task is
REPORT_EVERY_DOCUMENTS = 64  # documents between two progress reports
HELDOUT_SHARD = "heldout"
DRAFTS_FOLDER = ".work"  # in the data folder, so that shards can be renamed into place

BadRecordPlace = tuple[int, int, str]  # index of its file in the task, line, what is wrong
ProgressCallback = Callable[[int, int, int], None]  # documents, bytes and training tokens so far


def draft_folder(folder: Path, source: str, task: int) -> Path:
    """Return the folder of a task's draft."""
    return folder / DRAFTS_FOLDER / source / f"{task:05}"


@dataclass(frozen=True, kw_only=True)
class TaskDraft:
    """The contents of a draft's folder."""

    shards: list[ShardInfo]
    heldout: ShardInfo
    read: int
    dropped: dict[str, int]
    bad: list[BadRecordPlace] = field(default_factory=list)  # the first bad records

    @classmethod
    def load(cls, folder: Path) -> "TaskDraft | None":
        """Load a draft; return None if it is missing or incomplete."""
        try:
            content = json.loads((folder / "draft.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        shards = [ShardInfo(**shard) for shard in content["shards"]]
        heldout = ShardInfo(**content["heldout"])
        if not all(has_all_shard_files(folder, shard) for shard in [*shards, heldout]):
            return None
        bad = [tuple(one) for one in content.get("bad", [])]
        return cls(**{**content, "shards": shards, "heldout": heldout, "bad": bad})


def tokenize_task(
    config: DataConfig,
    source: SourceConfig,
    paths: Sequence[Path],
    tokenizer: "Tokenizer",
    decontamination: "DecontaminationFilter | None",
    folder: Path,
    report: ProgressCallback = lambda *_: None,
) -> None:
    """Write the draft `folder` from a task's files."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    counts: Counter[str] = Counter()
    bad = BadRecordCounter(strict=not config.max_bad_share)
    with _DraftWriter(temporary, config, tokenizer.end_of_text_id) as shards:
        texts = bad.filter(read_task_documents(source, paths))
        for document in _filter_documents(texts, source, decontamination, counts):
            shards.add(document, tokenizer.encode_array(document.text))
            if bad.read_count % REPORT_EVERY_DOCUMENTS == 0:
                report(bad.read_count, shards.bytes, shards.tokens)
            if source.max_tokens and shards.tokens >= source.max_tokens:
                break
        finished, heldout = shards.finish()
    counts["bad"] = bad.bad_count
    report(bad.read_count, shards.bytes, shards.tokens)
    draft = TaskDraft(
        shards=finished,
        heldout=heldout,
        read=bad.read_count,
        dropped={why: counts[why] for why in ("short", "long", "contaminated", "empty", "bad")},
        bad=[(paths.index(one.path), one.line, one.reason) for one in bad.examples],
    )
    atomic_write_text(temporary / "draft.json", json.dumps(asdict(draft)))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _filter_documents(
    texts: Iterator[Document],
    source: SourceConfig,
    decontamination: "DecontaminationFilter | None",
    counts: Counter[str],
) -> Iterator[Document]:
    """Yield the documents that pass all filters; count the others by the reason."""
    for document in texts:
        if not document.text.strip():
            counts["empty"] += 1
        elif len(document.text) < source.min_chars:
            counts["short"] += 1
        elif 0 < source.max_chars < len(document.text):
            counts["long"] += 1
        elif decontamination and decontamination.is_contaminated(document.text):
            counts["contaminated"] += 1
        else:
            yield document


class _OpenShard(NamedTuple):
    """A shard that is being written, with its documents' keys and sizes."""

    writer: ShardWriter
    keys: "array[int]"
    sizes: "array[int]"

    def add(self, ids: "NDArray[Any]", size: int, key: int) -> None:
        self.writer.add(ids, size)
        self.keys.append(key)
        self.sizes.append(size)


class _DraftWriter:
    """Writes a draft's shards of about `shard_tokens` each."""

    def __init__(self, folder: Path, config: DataConfig, end_of_text: int) -> None:
        self.folder, self.config, self.end_of_text = folder, config, end_of_text
        self.bytes = self.tokens = 0
        self.exit_stack = ExitStack()
        self.heldout = self._open_shard(HELDOUT_SHARD)
        self.shards: list[_OpenShard] = []
        self.pending: list[tuple[NDArray[Any], int, int]] = []  # of a shard not started yet
        self.pending_tokens = 0

    def __enter__(self) -> "_DraftWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.exit_stack.close()

    def add(self, document: Document, ids: "NDArray[Any]") -> None:
        """Add a document to the shard of its side of the split."""
        size = len(document.text.encode())
        key = text_position(document.text)
        self.bytes += size
        if is_heldout(document, self.config.heldout_fraction, key):
            self.heldout.add(ids, size, key)
            return
        self.tokens += len(ids) + 1
        if self.shards and self.shards[-1].writer.tokens < self.config.shard_tokens:
            self.shards[-1].add(ids, size, key)
            return
        # a new shard starts only when it has enough documents for the minimum length
        self.pending.append((ids, size, key))
        self.pending_tokens += len(ids) + 1
        if self.pending_tokens >= min(MIN_SHARD_TOKENS, self.config.shard_tokens):
            self._start_shard()

    def finish(self) -> tuple[list[ShardInfo], ShardInfo]:
        """Close all shards; return those of the training and of the held-out text."""
        if self.pending and not self.shards:
            self._start_shard()
        for document in self.pending:
            self.shards[-1].add(*document)
        return [self._close_shard(shard) for shard in self.shards], self._close_shard(self.heldout)

    def _start_shard(self) -> None:
        self.shards.append(self._open_shard(f"{len(self.shards):03}"))
        for document in self.pending:
            self.shards[-1].add(*document)
        self.pending, self.pending_tokens = [], 0

    def _open_shard(self, name: str) -> _OpenShard:
        writer = ShardWriter(self.folder, name, self.end_of_text)
        return _OpenShard(self.exit_stack.enter_context(writer), array("Q"), array("I"))

    def _close_shard(self, shard: _OpenShard) -> ShardInfo:
        path = self.folder / shard.writer.name
        keys, sizes = np.array(shard.keys, KEY_DTYPE), np.array(shard.sizes, SIZE_DTYPE)
        atomic_write_bytes(path.with_suffix(".keys"), keys.tobytes())
        atomic_write_bytes(path.with_suffix(".sizes"), sizes.tobytes())
        return shard.writer.finish()
