"""The manifest of a prepared folder, the markers of finished tasks, and the held-out split.

    during preparation   manifest.json: the plan            SOURCE/00003.json: task 3 is finished
    at the end           manifest.json: plan and all tasks

Both are replaced atomically, so they never name a file that does not exist. A source's tasks are
finished in the plan's order, so a reader sees a list that grows and never changes.

A document's content decides whether it is held out: a hash of its group (by default its text) is
compared with the fraction. The decision is the same for every budget, order and machine, and equal
texts are never separated, so no run can train on held-out text.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from gnano.config.data_config import MAX_BAD_SHARE
from gnano.data.readers import Document
from gnano.data.record_errors import MAX_SHOWN_RECORDS, format_bad_records, format_record_error
from gnano.data.shard_plan import ShardPlan, SourcePlan
from gnano.data.shards import ShardInfo
from gnano.utils.files import atomic_write_text

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """One finished task."""

    shards: list[ShardInfo]
    heldout: ShardInfo | None  # None where none of its documents is held out
    read: int  # documents in its files, up to the budget
    dropped: dict[str, int]  # documents left out, by reason
    lengths: list[int]  # training documents of [2^n, 2^(n+1)) tokens, by n
    # the first bad records: index of the file in the task, line, reason
    bad: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Parse the content of a marker."""
        heldout = content["heldout"]
        parsed = {
            "shards": [ShardInfo(**shard) for shard in content["shards"]],
            "heldout": ShardInfo(**heldout) if heldout else None,
            "bad": [tuple(one) for one in content.get("bad", [])],
        }
        return cls(**{**content, **parsed})


@dataclass(frozen=True, kw_only=True)
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
        return {
            why: sum(task.dropped[why] for task in self.tasks)
            for why in (self.tasks[0].dropped if self.tasks else ())
        }


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
        content = asdict(self)
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
            if content["format"] != MANIFEST_FORMAT:
                raise ValueError(
                    f"format {content['format']}, this version reads {MANIFEST_FORMAT}"
                )
            if content.pop("sha256") != _json_sha256(content):
                raise ValueError("it does not match its own checksum")
            sources = {
                name: SourceInfo(
                    tasks=[TaskInfo.from_json(task) for task in source["tasks"]],
                    complete=source["complete"],
                )
                for name, source in content.get("sources", {}).items()
            }
            manifest = cls(
                plan=ShardPlan.from_json(content["plan"]),
                tokenizer=content["tokenizer"],
                weights=content["weights"],
                sources=sources,
                complete=content["complete"],
                max_bad_share=content.get("max_bad_share", MAX_BAD_SHARE),
                skipped=content.get("skipped", {}),
            )
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
        for name, plan in self.plan.sources.items():
            info = self.sources[name]
            if info.complete:
                continue
            tasks, tokens = info.tasks, info.tokens
            while len(tasks) < len(plan.tasks) and not plan.is_budget_reached(tokens):
                found = read_marker(folder / name, len(tasks))
                if found is None:
                    break
                tasks.append(found)
                tokens += sum(shard.tokens for shard in found.shards)
            complete = len(tasks) == len(plan.tasks) or plan.is_budget_reached(tokens)
            self.sources[name] = SourceInfo(tasks=tasks, complete=complete)


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
    atomic_write_text(marker_path(folder, task), json.dumps(asdict(info), indent=1) + "\n")


def summarize_bad_records(plan: SourcePlan, tasks: Sequence[TaskInfo]) -> tuple[float, str]:
    """Return the share of bad records in these tasks, and a summary that shows the first."""
    bad, read = sum(task.dropped.get("bad", 0) for task in tasks), sum(task.read for task in tasks)
    examples = (
        format_record_error(plan.tasks[number][file].name, line, reason)
        for number, task in enumerate(tasks)
        for file, line, reason in task.bad
    )
    return bad / max(read, 1), format_bad_records(bad, read, islice(examples, MAX_SHOWN_RECORDS))


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
            keys = [np.fromfile(file, "<u8") for file in sorted((folder / name).glob("*.keys"))]
            positions = np.concatenate(keys).tolist() if keys else []
            subject = f"source {name!r} ({source.documents:,} documents)"
            warnings.append(format_empty_heldout(subject, fraction, positions))
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
