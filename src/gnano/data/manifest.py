"""The manifest of a prepared folder: its plan, its finished tasks, and the held-out split.

    during preparation   manifest.json: the plan            SOURCE/00003.json: task 3 is finished
    at the end           manifest.json: plan and all tasks

Both are replaced atomically, so they never name a file that does not exist. The plan is everything
that determines the bytes of the shards: tokenizer, split, files with their contents, budgets and
limits, but not the weights, which apply when reading. It is fixed before any work is done, so its
fingerprint identifies the data before it exists. Tasks are finished in one sequence in which the
sources advance together, so that training may start early, a reader's list of tasks only grows,
and "an earlier document" means the same for every number of workers:

    web 0 · code 0 · synthetic 0 · web 1 · code 1 · web 2 …

A document's content decides whether it is held out: a hash of its group (by default its text) is
compared with the fraction. The decision is the same for every budget, order and machine, and equal
texts are never separated, so no run can train on held-out text.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, chain, islice
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np

from gnano.config.data_config import MAX_BAD_SHARE
from gnano.data.readers import Document
from gnano.data.shards import ShardInfo, omit_id_bytes
from gnano.data.source_files import InputFile, TaskFiles
from gnano.data.text_files import MAX_SHOWN_RECORDS, BadRecordCounter, RecordError
from gnano.utils.files import atomic_write_text

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 2
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

    def estimate(self, tokens_per_byte: float = 0) -> tuple[int, int]:
        """Estimate the tasks that the budget needs, and their tokens; 0: default rates."""
        sizes = []  # tokens of each task
        for files in self.tasks:
            rates = [TOKENS_PER_BYTE.get(PurePath(file.name).suffix, 0.25) for file in files]
            pairs = zip(files, rates, strict=True)
            sizes.append(sum(round(file.size * (tokens_per_byte or rate)) for file, rate in pairs))
        budget = self.max_tokens or sum(sizes) + 1
        needed = sum(tokens < budget for tokens in accumulate(sizes[:-1], initial=0))
        return needed, min(sum(sizes), budget)


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
            expected, _ = source.estimate()
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
            recipe_keys = {"tasks": "generator" if source["kind"] == "generator" else "files"}
            changed = [key for key in source if source[key] != yours[name][key]]
            found += [f"sources.{name}.{recipe_keys.get(key, key)}" for key in changed]
        return found

    def is_compatible_with(self, other: "ShardPlan", finished_tasks: dict[str, int]) -> bool:
        """Return whether another plan differs only in files that no finished task has read."""
        allowed = {f"sources.{name}.files" for name in self.sources}
        if not allowed.issuperset(self.list_differences(other)):
            return False
        # sizes determine how the tasks of a budget are spread, and so their sequence
        return list(self.iter_tasks()) == list(other.iter_tasks()) and all(
            self.sources[name].tasks[:count] == other.sources[name].tasks[:count]
            for name, count in finished_tasks.items()
        )


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """One finished task, or the draft of one."""

    shards: list[ShardInfo]
    heldout: ShardInfo | None  # None where none of its documents is held out
    read: int  # documents in its files, up to the budget
    dropped: dict[str, int]  # documents left out, by reason
    # training documents of [2^n, 2^(n+1)) tokens, by n; empty in a draft
    lengths: list[int] = field(default_factory=list)
    # the first bad records: index of the file in the task, line, reason
    bad: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Parse a marker."""
        shards = [ShardInfo(**shard) for shard in content["shards"]]
        heldout = ShardInfo(**content["heldout"]) if content["heldout"] else None
        bad = [tuple(one) for one in content.get("bad", [])]
        return cls(**{**content, "shards": shards, "heldout": heldout, "bad": bad})


@dataclass(kw_only=True)
class SourceInfo:
    """The finished tasks of a source; its shards are in the folder of its name."""

    tasks: list[TaskInfo] = field(default_factory=list)
    complete: bool = False  # nothing will be added

    @property
    def shards(self) -> list[ShardInfo]:
        """The training shards."""
        return [shard for task in self.tasks for shard in task.shards]

    @property
    def heldout(self) -> list[ShardInfo]:
        """The held-out shards."""
        return [task.heldout for task in self.tasks if task.heldout]

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Training documents."""
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the training text."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def heldout_tokens(self) -> int:
        """Held-out tokens."""
        return sum(shard.tokens for shard in self.heldout)

    @property
    def read(self) -> int:
        """Documents read."""
        return sum(task.read for task in self.tasks)

    @property
    def dropped(self) -> dict[str, int]:
        """Documents left out, by reason."""
        reasons = self.tasks[0].dropped if self.tasks else ()
        return {why: sum(task.dropped[why] for task in self.tasks) for why in reasons}


@dataclass(kw_only=True)
class Manifest:
    """The content of a prepared folder, or of one that is being prepared."""

    plan: ShardPlan
    tokenizer: dict[str, Any]  # name, fingerprint, vocab_size, end_of_text
    weights: dict[str, float]  # the recipe's when it was prepared; training may use others
    sources: dict[str, SourceInfo]
    complete: bool = False
    max_bad_share: float = MAX_BAD_SHARE  # the recipe's
    skipped: dict[str, list[str]] = field(default_factory=dict)  # files left out, by setting

    @property
    def fingerprint(self) -> str:
        """The plan's hash, which identifies every token in its place, also before it exists."""
        # sources as a list: their order is part of the order of the samples
        plan = asdict(self.plan)
        plan["sources"] = list(plan["sources"].items())
        return _json_sha256([MANIFEST_FORMAT, self.tokenizer["fingerprint"], plan])

    def save(self, folder: Path) -> None:
        """Write `manifest.json`; finished tasks are only in the markers until all is complete."""
        content = asdict(self, dict_factory=omit_id_bytes)
        if not self.complete:
            del content["sources"]
        content = {"format": MANIFEST_FORMAT, "fingerprint": self.fingerprint, **content}
        # over the complete content, so that a damaged count is noticed too
        content["sha256"] = _json_sha256(content)
        atomic_write_text(folder / MANIFEST_NAME, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder's manifest; raise FileNotFoundError or ValueError if it is invalid."""
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not a prepared data folder ({MANIFEST_NAME} is missing); "
                f"make it with `gnano prepare`."
            )
        try:
            content = json.loads(path.read_text("utf-8"))
            if (written := content.pop("format")) != MANIFEST_FORMAT:
                raise ValueError(f"format {written}, this version reads {MANIFEST_FORMAT}")
            if content.pop("sha256") != _json_sha256({"format": written, **content}):
                raise ValueError("it does not match its own checksum")
            del content["fingerprint"]
            plan = content["plan"]
            plan["decontaminate"] = tuple(InputFile(*file) for file in plan["decontaminate"])
            for name, source in plan["sources"].items():
                tasks = tuple(tuple(InputFile(*file) for file in task) for task in source["tasks"])
                plan["sources"][name] = SourcePlan(**{**source, "tasks": tasks})
            content["plan"] = ShardPlan(**plan)
            for name, source in content.setdefault("sources", {}).items():
                finished = [TaskInfo.from_json(task) for task in source["tasks"]]
                content["sources"][name] = SourceInfo(tasks=finished, complete=source["complete"])
            manifest = cls(**content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): restore it from a copy, or prepare another folder "
                f"(--data.folder)."
            ) from None
        if not manifest.complete:
            manifest.sources = {name: SourceInfo() for name in manifest.plan.sources}
            manifest.refresh(folder)
        return manifest

    def refresh(self, folder: Path) -> None:
        """Add the tasks that have been finished since, by their markers."""
        for name, info in self.sources.items():
            while not info.complete and (task := read_marker(folder / name, len(info.tasks))):
                self.add_task(name, task)

    def add_task(self, source: str, task: TaskInfo) -> None:
        """Add the next finished task of a source, which its last task or its budget completes."""
        plan, info = self.plan.sources[source], self.sources[source]
        info.tasks.append(task)
        info.complete = len(info.tasks) == len(plan.tasks) or 0 < plan.max_tokens <= info.tokens


def _json_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def marker_path(folder: Path, task: int) -> Path:
    """Return the path of the file that marks a source's task as finished."""
    return folder / f"{task:05}.json"


def read_marker(folder: Path, task: int) -> TaskInfo | None:
    """Read a finished task, or None; raise ValueError if its marker is damaged."""
    path = marker_path(folder, task)
    try:
        return TaskInfo.from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and run the same `gnano prepare` again."
        ) from None


def write_marker(folder: Path, task: int, info: TaskInfo) -> None:
    """Mark a task as finished."""
    content = asdict(info, dict_factory=omit_id_bytes)
    atomic_write_text(marker_path(folder, task), json.dumps(content, indent=1) + "\n")


def count_bad_records(plan: SourcePlan, tasks: Sequence[TaskInfo]) -> BadRecordCounter:
    """Count the bad records of these tasks."""
    examples = (
        RecordError(Path(plan.tasks[number][file].name), line, reason)
        for number, task in enumerate(tasks)
        for file, line, reason in task.bad
    )
    return BadRecordCounter(
        read_count=sum(task.read for task in tasks),
        bad_count=sum(task.dropped.get("bad", 0) for task in tasks),
        examples=list(islice(examples, MAX_SHOWN_RECORDS)),
    )


def text_position(text: str) -> int:
    """Hash a text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()[:8], "big")


def is_heldout(document: Document, fraction: float, position: int | None = None) -> bool:
    """Return whether a document is held out; `position` is its text's, if already computed."""
    if document.split_group or position is None:
        position = text_position(document.split_group or document.text)
    return position < fraction * 2**64


def warn_empty_heldout(folder: Path, manifest: Manifest) -> list[str]:
    """Return a warning for each complete source that has documents and no held-out tokens."""
    fraction = manifest.plan.heldout
    warnings = []
    for name, source in manifest.sources.items():
        if fraction and source.complete and source.documents and not source.heldout_tokens:
            keys = [np.fromfile(file, "<u8").tolist() for file in (folder / name).glob("*.keys")]
            subject = f"source {name!r} ({source.documents:,} documents)"
            warnings.append(format_empty_heldout(subject, fraction, chain.from_iterable(keys)))
    return warnings


def format_empty_heldout(subject: str, fraction: float, positions: Iterable[int]) -> str:
    """Return a warning that nothing is held out, with a fraction that would hold out some texts."""
    found = sorted(set(positions))
    warning = (
        f"Nothing of {subject} is held out at data.heldout_fraction {fraction:g}, so its held-out "
        f"loss cannot be measured"
    )
    count = min(10, max(1, len(found) // 10))
    needed = (found[count - 1] + 1) / 2**64 if len(found) > 1 else 1.0
    digits = 1 - math.floor(math.log10(needed))  # two significant digits, rounded up
    needed = math.ceil(needed * 10**digits) / 10**digits
    if needed >= 1:
        return f"{warning}: it needs more texts."
    return f"{warning}: data.heldout_fraction {needed:g} holds out {count}."
