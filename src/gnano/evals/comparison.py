"""Comparison of models under the same settings, with published scores of the same tasks.

    a model ──▶ a saved result of the same settings? ──yes──▶ used again ──┐
                                        └─no──▶ evaluated, saved ──────────┴▶ Comparison
    published scores of the same tasks, the nearest in size and tokens ─────▶ a table, a picture

A column is a task of which every model has a result over the same items; any other is left out,
with a note that says why.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot
from pathlib import Path

from gnano.checkpoint.format import find_checkpoint
from gnano.config.eval_config import ALL_TASKS, EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals.bits_per_byte import mean_bits_per_byte
from gnano.evals.eval_tasks import TASKS, load_tasks
from gnano.evals.model_adapter import DEFAULT_LOADING, check_transformers_installed, load_eval_model
from gnano.evals.reference_scores import REFERENCE_MODELS, ReferenceModel, nearest_models
from gnano.evals.result_store import (
    choose_result_path,
    find_result,
    items_filename,
    load_newest_result,
)
from gnano.evals.runner import (
    Accuracy,
    EvalResult,
    TaskScore,
    evaluate,
    format_contamination,
    write_result,
)
from gnano.utils.terminal import best_effort
from gnano.utils.text import dump_json

MAX_REFERENCE_MODELS = 12  # published rows beside models, unless all are wanted
Report = Callable[[str], None]


@dataclass(frozen=True)
class TaskColumn:
    """A task, and by which of its two accuracies it is compared."""

    task: str
    title: str
    metric: str  # acc_norm where the length of an answer means something, else acc
    items: int = 0  # 0: there is no model of ours
    shots: int = 0
    chance: float | None = None  # accuracy of a guess

    def accuracy_of(self, result: EvalResult) -> Accuracy:
        found = next(one for one in result.scores if one.task == self.task)
        accuracy: Accuracy = getattr(found, self.metric)
        return accuracy

    def reference_score(self, reference: ReferenceModel) -> tuple[float, str] | None:
        """Return a row's score in the task and its metric, this column's if it has that."""
        if reference.shots != self.shots or self.task not in reference.scores:
            return None
        values = dict(zip(("acc", "acc_norm"), reference.scores[self.task], strict=True))
        for metric in (self.metric, *values):
            if (value := values[metric]) is not None:
                return value, metric
        return None


@dataclass(frozen=True)
class Difference:
    """Score of the first of two models less that of the second, in one task."""

    title: str
    value: float
    stderr: float  # standard error

    @property
    def is_significant(self) -> bool:
        return abs(self.value) > 2 * self.stderr


@dataclass(frozen=True, kw_only=True)
class Comparison:
    models: tuple[EvalResult, ...]
    columns: tuple[TaskColumn, ...]
    published: tuple[ReferenceModel, ...]  # by tokens, unknown counts last
    texts: tuple[str, ...]  # that all models have read: held-out sources, files
    notes: tuple[str, ...]

    def bits_per_byte(self, result: EvalResult) -> float:
        """Return the bits per byte of those texts."""
        return mean_bits_per_byte([part for part in result.bits if part.source in self.texts])

    @property
    def differences(self) -> list[Difference]:
        """The differences between two models; none between more or fewer."""
        if len(self.models) != 2:
            return []
        found = []
        for column in self.columns:
            one, other = map(column.accuracy_of, self.models)
            # all or none right of a few items has an error of 0, and yet is not certain
            least = 0.5 / column.items
            error = hypot(max(one.stderr, least), max(other.stderr, least))
            found.append(Difference(column.title, one.value - other.value, error))
        return found

    def to_json(self) -> str:
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
    """Return results of all models under the same settings, and the nearest published rows.

    With default settings and a saved result of every model, those are compared as they are.
    Without a model: the published rows alone. Raises ValueError or OSError, in a sentence, and
    before anything is computed where a path is no model.
    """
    found = _load_or_evaluate(paths, config, loading, on_progress, on_note)
    names = [model.name for model in found]
    models = [  # two of one name are called by their paths
        model if names.count(model.name) == 1 else replace(model, name=str(path))
        for model, path in zip(found, paths, strict=True)
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
        notes.append("Bits per byte: no text that all models read; --data DIR or --text FILE.")
    rows: list[ReferenceModel] = []
    if published:
        rows = _select_reference_models(
            columns, models, 0 if all_published or not models else MAX_REFERENCE_MODELS
        )
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
    """Return the evaluation of every model, a saved one where it has the same settings."""
    folders = list(map(find_checkpoint, paths))
    for folder in folders:
        check_transformers_installed(folder)
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise ValueError(f"{folder} is named twice; name each model once.")
    if (
        replace(config, batch_size=EvalConfig.batch_size, cache_dir=EvalConfig.cache_dir)
        == EvalConfig()
    ):
        saved = [one for folder in folders if (one := load_newest_result(folder, loading))]
        if len(saved) == len(paths) and (_common_columns(saved, []) or _common_texts(saved)):
            for one in saved:
                on_note(f"{one.name}: as saved")
            return saved
    found = []
    for number, (path, folder) in enumerate(zip(paths, folders, strict=True), 1):
        result = find_result(folder, config, loading)
        if result is not None:
            on_note(f"{result.name}: as saved")
        else:

            def show_model(
                text: str, name: str = f"model {number} of {len(paths)} · {path}"
            ) -> None:
                on_progress(f"{name} · {text}")

            show_model("loading")
            result = evaluate(load_eval_model(path, loading, config.add_bos), config, show_model)
            with best_effort("saved result"):
                write_result(result, choose_result_path(result))
        found.append(result)
    return found


def _common_columns(models: Sequence[EvalResult], notes: list[str]) -> tuple[TaskColumn, ...]:
    """Return the tasks that all models have over the same items; the others go to `notes`."""
    left_out: dict[str, list[str]] = {}
    for model in models:
        for what, why in model.skipped.items():
            left_out.setdefault(why, []).append(what)
    notes += [f"{', '.join(dict.fromkeys(what))} left out: {why}" for why, what in left_out.items()]
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
            notes.append(f"{title} is not compared, the items are not the same: {each}.")
    order = list(TASKS)
    return tuple(sorted(columns, key=lambda c: order.index(c.task) if c.task in TASKS else 99))


def _describe_items(score: TaskScore | None, model: EvalResult) -> str:
    if score is None:
        return "none"
    shots = f", {score.shots}-shot" if score.shots else ""
    return f"{score.items:,} of {items_filename(model, score.task) or 'the Hub'}{shots}"


def _columns_of_config(config: EvalConfig) -> tuple[TaskColumn, ...]:
    """Return the columns of the known tasks in the settings, for no model."""
    own = [sheet.task for sheet in load_tasks((), config.files)]
    names = [*config.task_names, *own]
    for name in names:
        if name not in (*TASKS, *own, ALL_TASKS, "none"):
            raise ValueError(f"There is no task {name!r}; there are {', '.join(TASKS)}.")
    return tuple(
        TaskColumn(name, task.title, "acc_norm" if task.has_acc_norm else "acc", shots=config.shots)
        for name, task in TASKS.items()
        if name in names or ALL_TASKS in names
    )


def _common_texts(models: Sequence[EvalResult]) -> tuple[str, ...]:
    """Return the sources that all have measured, of the same names and sizes in bytes."""
    read = [{part.source: part.bytes for part in model.bits} for model in models]
    first = read[0].items() if read else ()
    return tuple(name for name, size in first if all(one.get(name) == size for one in read))


def _select_reference_models(
    columns: Sequence[TaskColumn], models: Sequence[EvalResult], limit: int
) -> list[ReferenceModel]:
    """Return the nearest `most` rows (0: all) with a score in one of the columns, by tokens."""
    rows = [
        row for row in REFERENCE_MODELS if any(column.reference_score(row) for column in columns)
    ]
    if limit:
        rows = nearest_models(rows, [(model.parameters, model.tokens) for model in models], limit)
    return sorted(rows, key=lambda row: (row.tokens is None, row.tokens or 0, row.parameters))


def _comparability_notes(columns: Sequence[TaskColumn], models: Sequence[EvalResult]) -> list[str]:
    """Return what makes published scores incomparable with these."""
    notes = []
    for column in columns:
        rows = [row for row in REFERENCE_MODELS if column.task in row.scores]
        if rows and not any(map(column.reference_score, rows)):
            notes.append(f"{column.title}: no published scores of {column.shots} shots are known.")
    if columns and any(model.settings.get("limit") for model in models):
        notes.append("Published scores are of all items; here each task is a part (--limit).")
    return notes
