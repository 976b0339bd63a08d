"""Comparison of models under the same settings, with published scores of the same tasks.

    model ──▶ stored result with the same settings? ──yes──▶ reused ──────┐
                              └─no──▶ evaluated, stored ──────────────────┴▶ Comparison
    published scores of the same tasks, nearest in size and tokens ───────▶ table, plot

A column is a task for which every model has a result on the same items. Other tasks are left out,
with a note that gives the reason.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot
from pathlib import Path

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import ALL_TASKS, EvalConfig, LoadConfig
from gnano.evals import result_store
from gnano.evals.bits_per_byte import mean_bits_per_byte
from gnano.evals.eval_tasks import TASKS, load_tasks
from gnano.evals.model_adapter import DEFAULT_LOADING, check_transformers_installed, load_eval_model
from gnano.evals.reference_scores import REFERENCE_MODELS, ReferenceModel, nearest_models
from gnano.evals.runner import (
    Accuracy,
    EvalResult,
    TaskScore,
    evaluate,
    format_contamination,
    write_result,
)
from gnano.utils.files import dump_json
from gnano.utils.terminal import best_effort

MAX_REFERENCE_MODELS = 12  # published rows shown next to models, unless all are requested
Report = Callable[[str], None]


@dataclass(frozen=True)
class TaskColumn:
    """A task and the metric by which models are compared in it."""

    task: str
    title: str
    metric: str  # acc_norm where normalizing by length is meaningful, else acc
    items: int = 0  # 0: without a model
    shots: int = 0
    chance: float | None = None  # accuracy of guessing

    def accuracy_of(self, result: EvalResult) -> Accuracy:
        """Return a model's accuracy in this column."""
        score = next(one for one in result.scores if one.task == self.task)
        accuracy: Accuracy = getattr(score, self.metric)
        return accuracy

    def reference_score(self, reference: ReferenceModel) -> tuple[float, str] | None:
        """Return a published score and its metric, preferring this column's metric."""
        if reference.shots != self.shots or self.task not in reference.scores:
            return None
        values = dict(zip(("acc", "acc_norm"), reference.scores[self.task], strict=True))
        for metric in (self.metric, *values):
            if (value := values[metric]) is not None:
                return value, metric
        return None


@dataclass(frozen=True)
class Difference:
    """The first of two models' score minus the second's in one task."""

    title: str
    value: float
    stderr: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference exceeds two standard errors."""
        return abs(self.value) > 2 * self.stderr


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The results of models and published scores in common columns."""

    models: tuple[EvalResult, ...]
    columns: tuple[TaskColumn, ...]
    published: tuple[ReferenceModel, ...]  # by tokens, unknown counts last
    texts: tuple[str, ...]  # held-out sources and files that all models were measured on
    notes: tuple[str, ...]

    def bits_per_byte(self, result: EvalResult) -> float:
        """Return a model's bits per byte on the common texts."""
        return mean_bits_per_byte([part for part in result.bits if part.source in self.texts])

    @property
    def differences(self) -> list[Difference]:
        """The differences between two models; empty for any other number of models."""
        if len(self.models) != 2:
            return []
        differences = []
        for column in self.columns:
            first, second = map(column.accuracy_of, self.models)
            # all or none right of a few items has a standard error of 0, but is not certain
            least = 0.5 / column.items
            stderr = hypot(max(first.stderr, least), max(second.stderr, least))
            differences.append(Difference(column.title, first.value - second.value, stderr))
        return differences

    def to_json(self) -> str:
        """Return the comparison as JSON."""
        content = {
            "models": [json.loads(model.to_json()) for model in self.models],
            "columns": list(map(asdict, self.columns)),
            "texts": self.texts,
            "bits_per_byte": list(map(self.bits_per_byte, self.models)) if self.texts else None,
            "differences": [
                {**asdict(one), "clear": one.is_significant} for one in self.differences
            ],
            "published": list(map(asdict, self.published)),
            "notes": self.notes,
        }
        return dump_json(content, indent=1)


def compare_models(
    paths: Sequence[Path],
    config: EvalConfig,
    loading: LoadConfig = DEFAULT_LOADING,
    published: bool = True,
    all_published: bool = False,
    on_progress: Report = lambda _: None,
    on_note: Report = lambda _: None,
) -> Comparison:
    """Evaluate the models under the same settings and add the nearest published scores.

    With default settings and a stored result of every model, those results are compared. Without
    models, the comparison contains published scores only. Raises ValueError or OSError, before
    anything is computed, if a path contains no model.
    """
    results = _load_or_evaluate(paths, config, loading, on_progress, on_note)
    names = [model.name for model in results]
    models = [  # models with the same name are named by their paths
        model if names.count(model.name) == 1 else replace(model, name=str(path))
        for model, path in zip(results, paths, strict=True)
    ]
    notes = [
        f"{model.name}, {one.title}: {format_contamination(one)}."
        for model in models
        for one in model.scores
        if one.contamination
    ]
    columns = _common_columns(models, notes) if models else _columns_of_config(config)
    texts = _common_texts(models)
    if models and not texts:
        notes.append("Bits per byte: the models have no text in common; --data DIR or --text FILE.")
    rows: list[ReferenceModel] = []
    if published:
        limit = 0 if all_published or not models else MAX_REFERENCE_MODELS
        rows = _select_reference_models(columns, models, limit)
        notes += _comparability_notes(columns, models)
    if not models and not rows:
        raise ValueError("There is nothing to show: name models to compare, or known tasks.")
    return Comparison(
        models=tuple(models),
        columns=columns,
        published=tuple(rows),
        texts=texts,
        notes=tuple(dict.fromkeys(notes)),
    )


def _load_or_evaluate(
    paths: Sequence[Path],
    config: EvalConfig,
    loading: LoadConfig,
    on_progress: Report,
    on_note: Report,
) -> list[EvalResult]:
    """Return every model's result: a stored one with the same settings, or a new one."""
    folders = list(map(find_checkpoint, paths))
    for folder in folders:
        check_transformers_installed(folder)
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise ValueError(f"{folder} is named twice; name each model once.")
    default = EvalConfig()
    if replace(config, batch_size=default.batch_size, cache_dir=default.cache_dir) == default:
        stored = [
            one for folder in folders if (one := result_store.load_newest_result(folder, loading))
        ]
        if len(stored) == len(paths) and (_common_columns(stored, []) or _common_texts(stored)):
            for one in stored:
                on_note(f"{one.name}: stored result")
            return stored
    results = []
    for number, (path, folder) in enumerate(zip(paths, folders, strict=True), 1):
        result = result_store.find_result(folder, config, loading)
        if result is not None:
            on_note(f"{result.name}: stored result")
        else:

            def show(text: str, prefix: str = f"model {number} of {len(paths)} · {path}") -> None:
                on_progress(f"{prefix} · {text}")

            show("loading")
            result = evaluate(load_eval_model(path, loading, config.add_bos), config, show)
            with best_effort("stored result"):
                write_result(result, result_store.choose_result_path(result))
        results.append(result)
    return results


def _common_columns(models: Sequence[EvalResult], notes: list[str]) -> tuple[TaskColumn, ...]:
    """Return the tasks that all models have on the same items; add notes about the others."""
    skipped: dict[str, list[str]] = {}
    for model in models:
        for what, reason in model.skipped.items():
            skipped.setdefault(reason, []).append(what)
    notes += [f"{', '.join(dict.fromkeys(what))} skipped: {why}" for why, what in skipped.items()]
    columns = []
    for task, title in {one.task: one.title for m in models for one in m.scores}.items():
        scores = [next((one for one in m.scores if one.task == task), None) for m in models]
        items = [_describe_items(one, model) for one, model in zip(scores, models, strict=True)]
        first = scores[0]
        if first is not None and len(set(items)) == 1:
            metric = "acc_norm" if all(one and one.acc_norm for one in scores) else "acc"
            columns.append(TaskColumn(task, title, metric, first.items, first.shots, first.chance))
        else:
            each = "; ".join(f"{m.name} {what}" for m, what in zip(models, items, strict=True))
            notes.append(f"{title} is not compared, because the items differ: {each}.")
    order = list(TASKS)
    return tuple(sorted(columns, key=lambda c: order.index(c.task) if c.task in TASKS else 99))


def _describe_items(score: TaskScore | None, model: EvalResult) -> str:
    if score is None:
        return "none"
    shots = f", {score.shots}-shot" if score.shots else ""
    return (
        f"{score.items:,} of {result_store.items_filename(model, score.task) or 'the Hub'}{shots}"
    )


def _columns_of_config(config: EvalConfig) -> tuple[TaskColumn, ...]:
    """Return the columns of the known tasks in the settings, without a model."""
    custom = [one.task for one in load_tasks((), config.files)]
    names = [*config.task_names, *custom]
    for name in names:
        if name not in (*TASKS, *custom, ALL_TASKS, "none"):
            raise ValueError(f"There is no task {name!r}; there are {', '.join(TASKS)}.")
    return tuple(
        TaskColumn(name, task.title, "acc_norm" if task.has_acc_norm else "acc", shots=config.shots)
        for name, task in TASKS.items()
        if name in names or ALL_TASKS in names
    )


def _common_texts(models: Sequence[EvalResult]) -> tuple[str, ...]:
    """Return the sources that all models were measured on, with equal names and sizes in bytes."""
    sizes = [{part.source: part.bytes for part in model.bits} for model in models]
    first = sizes[0].items() if sizes else ()
    return tuple(name for name, size in first if all(one.get(name) == size for one in sizes))


def _select_reference_models(
    columns: Sequence[TaskColumn], models: Sequence[EvalResult], limit: int
) -> list[ReferenceModel]:
    """Return the nearest `limit` rows (0: all) with a score in one of the columns, by tokens."""
    rows = [
        row for row in REFERENCE_MODELS if any(column.reference_score(row) for column in columns)
    ]
    if limit:
        rows = nearest_models(rows, [(model.parameters, model.tokens) for model in models], limit)
    return sorted(rows, key=lambda row: (row.tokens is None, row.tokens or 0, row.parameters))


def _comparability_notes(columns: Sequence[TaskColumn], models: Sequence[EvalResult]) -> list[str]:
    """Return the reasons why published scores are not comparable with these."""
    notes = []
    for column in columns:
        rows = [row for row in REFERENCE_MODELS if column.task in row.scores]
        if rows and not any(map(column.reference_score, rows)):
            notes.append(
                f"{column.title}: there are no published scores with {column.shots} shots."
            )
    if columns and any(model.settings.get("limit") for model in models):
        notes.append("Published scores are over all items; these cover a part of them (--limit).")
    return notes
