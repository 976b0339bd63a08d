"""Results of evaluations: as text, as JSON, and stored for reuse while their inputs are unchanged.

    RUN/evals/step-00001200.json            the first result
    RUN/evals/step-00001200-1f0c3a9e.json   another one, with other settings
    evals/NAME.json …                       results of a folder that belongs to no run

A result replaces another only if both have the same settings: the other may have taken hours.
"""

import glob
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.eval_tasks import parse_task_file
from gnano.utils.files import atomic_write_text, dump_json
from gnano.utils.formatting import format_table


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of one source or file."""

    source: str
    bits_per_byte: float
    bytes: int
    tokens: int


def mean_bits_per_byte(parts: Sequence[BitsPerByte]) -> float:
    """Return the mean over all parts, weighted by their bytes."""
    return sum(p.bits_per_byte * p.bytes for p in parts) / sum(p.bytes for p in parts)


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, with its standard error."""

    value: float
    stderr: float  # 0 for a single item

    @classmethod
    def from_counts(cls, num_correct: float, num_items: int) -> "Accuracy":
        """Return the accuracy of `num_correct` right answers out of `num_items`."""
        mean = num_correct / num_items
        return cls(mean, math.sqrt(mean * (1 - mean) / max(1, num_items - 1)))

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """The result of one task."""

    task: str
    title: str
    items: int
    shots: int
    chance: float | None  # accuracy of guessing; None: unknown
    acc: Accuracy
    acc_norm: Accuracy | None  # None where normalizing by length is not meaningful
    perplexity: float | None = None  # per answer, for tasks with one answer
    contamination: dict[str, Any] | None = None  # by the training data, if it was searched

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TaskScore":
        """Return the score that `asdict` converted."""
        norm = content["acc_norm"]
        accuracies = {"acc": Accuracy(**content["acc"]), "acc_norm": norm and Accuracy(**norm)}
        return cls(**{**content, **accuracies})

    def format_contamination(self) -> str:
        """Return how many items the training data contains, as a line; "" if not searched."""
        if not self.contamination:
            return ""
        found, checked = self.contamination["found"], self.contamination["checked"]
        line = f"{found:,} of its {checked:,} items of 13 words or more are in the training shards"
        if clean := self.contamination["clean"]:
            metric = "acc_norm" if self.acc_norm else "acc"
            accuracy = Accuracy(**(clean["acc_norm"] or clean["acc"]))
            line += f"; {metric} {accuracy} without them"
        return line


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """All results of one model, with the settings they were measured with."""

    name: str
    folder: str
    parameters: int
    tokens: int | None  # tokens of training
    bits: tuple[BitsPerByte, ...] = ()
    scores: tuple[TaskScore, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)  # what was not measured: the reason
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Mean over the bytes of all sources."""
        return mean_bits_per_byte(self.bits) if self.bits else None

    def to_json(self) -> str:
        """Return the result as JSON."""
        return dump_json({**asdict(self), "bits_per_byte": self.bits_per_byte}, indent=1)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "ModelResult":
        """Return the result of parsed JSON."""
        known = {k: v for k, v in content.items() if k != "bits_per_byte"}
        bits = tuple(BitsPerByte(**part) for part in known.pop("bits"))
        return cls(bits=bits, scores=tuple(map(TaskScore.from_dict, known.pop("scores"))), **known)

    def format_table(self) -> str:
        """Return the result as text for a terminal."""
        trained = f" · {self.tokens / 1e6:,.1f} M tokens" if self.tokens else ""
        lines = [f"{self.name} · {self.parameters:,} parameters{trained}"]
        if self.bits:
            parts = [(part.source, part.bits_per_byte, part.bytes) for part in self.bits]
            if len(parts) > 1:
                parts.append(("all", mean_bits_per_byte(self.bits), sum(p[2] for p in parts)))
            rows = [(name, f"{bits:.4f}", f"{size:,}") for name, bits, size in parts]
            lines += ["", *format_table([("held-out text", "bits/byte", "bytes"), *rows])]
        if self.scores:
            table = [("task", "items", "acc", "acc_norm", "chance", "")]
            for one in self.scores:
                norm = str(one.acc_norm) if one.acc_norm else ""
                chance = "" if one.chance is None else f"{one.chance:.3f}"
                more = [] if one.perplexity is None else [f"perplexity {one.perplexity:,.1f}"]
                more += [f"{one.shots}-shot"] if one.shots else []
                cells = one.title, f"{one.items:,}", str(one.acc), norm, chance, "  ".join(more)
                table.append(cells)
            heading, *formatted = format_table(table, left=(0, 2, 3, 5))
            lines += ["", heading]
            for one, line in zip(self.scores, formatted, strict=True):
                note = one.format_contamination()
                lines += [line, f"  {note}"] if note else [line]
        lines += [f"skipped: {what}: {reason}" for what, reason in self.skipped.items()]
        return "\n".join(lines)


def settings_dict(config: EvalConfig, loading: LoadConfig) -> dict[str, Any]:
    """Return the settings in the form in which JSON stores them."""
    content = {**asdict(config), "loading": {"dtype": loading.dtype, "quant": loading.quant}}
    settings: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return settings


def score_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a score depends on, except how the weights are loaded."""
    rest = {"batch_size", "cache_dir", "loading"}
    return {name: value for name, value in settings.items() if name not in rest}


def _loading_settings(settings: dict[str, Any]) -> Any:
    return settings.get("loading") or settings_dict(EvalConfig(), LoadConfig())["loading"]


def write_result(result: ModelResult, path: Path) -> None:
    """Write the result as JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{result.to_json()}\n")


def _read_result(path: Path) -> ModelResult | None:
    """Return the result in a file; None if this version cannot read it."""
    try:
        return ModelResult.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def default_result_path(result: ModelResult) -> Path:
    """Return the path in the run of the checkpoint; for other folders, in evals/."""
    folder = Path(result.folder)
    by = "-by-harness" if "harness" in result.settings else ""
    name = f"{folder.resolve().name}{by}.json"
    if folder.resolve().parent.name == "checkpoints":
        return folder.parent.parent / "evals" / name
    return Path("evals") / name


def choose_result_path(result: ModelResult) -> Path:
    """Return the path to write to; only a result with the same settings is overwritten."""

    def key(one: ModelResult) -> str:
        folder = str(Path(one.folder).resolve())
        settings = score_settings(one.settings), _loading_settings(one.settings)
        return json.dumps([folder, *settings], sort_keys=True)

    first = default_result_path(result)
    existing = _read_result(first)
    if existing is None or key(existing) == key(result):
        return first
    code = hashlib.sha256(key(result).encode()).hexdigest()[:8]
    return first.with_name(f"{first.stem}-{code}.json")


def load_valid_results(folder: Path, loading: LoadConfig) -> list[ModelResult]:
    """Return the up-to-date results of a checkpoint loaded with `loading`, the newest last.

    A result is out of date if a file that it was computed from is newer.
    """
    first = default_result_path(ModelResult(name="", folder=str(folder), parameters=0, tokens=None))
    expected_loading = _loading_settings(settings_dict(EvalConfig(), loading))
    results = []
    paths = first.parent.glob(f"{glob.escape(first.stem)}*.json")
    for written_at, path in sorted((path.stat().st_mtime, path) for path in paths):
        result = _read_result(path)
        if result is None or "harness" in result.settings:
            continue
        # a result in evals/ may belong to another folder of this name; a run may have been moved
        if path.parent == Path("evals") and Path(result.folder).resolve() != folder.resolve():
            continue
        if _loading_settings(result.settings) != expected_loading:
            continue
        inputs = [Path(parse_task_file(file)[1]) for file in result.settings.get("files", ())]
        inputs += map(Path, result.settings.get("text", ()))
        if data := result.settings.get("data"):
            inputs.append(Path(data) / "manifest.json")
        inputs += [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        if all(file.stat().st_mtime <= written_at for file in inputs if file.is_file()):
            results.append(result)
    return results
