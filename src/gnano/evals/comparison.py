"""Comparison of models under the same settings, with published scores of the same tasks.

    model ──▶ stored result with the same settings? ──yes──▶ reused ──────┐
                              └─no──▶ evaluated, stored ──────────────────┴▶ Comparison
    published scores of the same tasks, nearest in size and tokens ───────▶ table, plot

A column is a task for which every model has a result on the same items. Other tasks are left out,
with a note that gives the reason.

`reference_scores.json` says what the published scores mean, and which are comparable.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot, log
from pathlib import Path

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import ALL_TASKS, EvalConfig, LoadConfig
from gnano.evals.eval_tasks import TASKS, load_tasks, parse_task_file
from gnano.evals.model_adapter import check_transformers_installed, load_eval_model
from gnano.evals.result_store import (
    Accuracy,
    ModelResult,
    choose_result_path,
    load_valid_results,
    mean_bits_per_byte,
    score_settings,
    settings_dict,
    write_result,
)
from gnano.evals.runner import evaluate
from gnano.utils.files import dump_json
from gnano.utils.terminal import best_effort

MAX_REFERENCE_MODELS = 12  # published rows shown next to models, unless all are requested
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """The published scores of one model at one point of its training, from one source."""

    name: str
    parameters: int  # including embeddings; nominal where the source rounds
    tokens: int | None  # of pretraining; None: never published
    scores: Mapping[str, Sequence[float | None]]  # task: (acc, acc_norm); None: not given
    shots: int  # few-shot examples
    source: str  # URL of the scores
    note: str  # harness and training data


# sorted by parameters, then tokens; an unpublished count comes first
_REFERENCE_SCORES = json.loads(Path(__file__).with_name("reference_scores.json").read_text("utf-8"))
REFERENCE_MODELS = tuple(ReferenceModel(**row) for row in _REFERENCE_SCORES["models"])


@dataclass(frozen=True)
class TaskColumn:
    """A task and the metric by which models are compared in it."""

    task: str
    title: str
    metric: str  # acc_norm where normalizing by length is meaningful, else acc
    items: int = 0  # 0: without a model
    shots: int = 0
    chance: float | None = None  # accuracy of guessing

    def accuracy_of(self, result: ModelResult) -> Accuracy:
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

    models: tuple[ModelResult, ...]
    columns: tuple[TaskColumn, ...]
    published: tuple[ReferenceModel, ...]  # by tokens, unknown counts last
    texts: tuple[str, ...]  # held-out sources and files that all models were measured on
    notes: tuple[str, ...]

    def bits_per_byte(self, result: ModelResult) -> float:
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
    loading: LoadConfig | None = None,
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
    results = _load_or_evaluate(paths, config, loading or LoadConfig(), on_progress, on_note)
    names = [model.name for model in results]
    models = [  # models with the same name are named by their paths
        model if names.count(model.name) == 1 else replace(model, name=str(path))
        for model, path in zip(results, paths, strict=True)
    ]
    notes = [
        f"{model.name}, {one.title}: {one.format_contamination()}."
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
        rows = [row for row in REFERENCE_MODELS if any(one.reference_score(row) for one in columns)]
        if models and not all_published:
            rows = nearest_models(rows, models, MAX_REFERENCE_MODELS)
        rows.sort(key=lambda row: (row.tokens is None, row.tokens or 0, row.parameters))
        for column in columns:
            known = [row for row in REFERENCE_MODELS if column.task in row.scores]
            if known and not any(map(column.reference_score, known)):
                notes.append(
                    f"{column.title}: there are no published scores with {column.shots} shots."
                )
        if columns and any(model.settings.get("limit") for model in models):
            notes.append(
                "Published scores are over all items; these cover a part of them (--limit)."
            )
    if not models and not rows:
        raise ValueError("There is nothing to show: name models to compare, or known tasks.")
    return Comparison(
        models=tuple(models),
        columns=columns,
        published=tuple(rows),
        texts=texts,
        notes=tuple(dict.fromkeys(notes)),
    )


def nearest_models(
    rows: Sequence[ReferenceModel], models: Sequence[ModelResult], limit: int
) -> list[ReferenceModel]:
    """Return the `limit` rows nearest to one of the models in parameters and tokens.

    A factor of two in parameters counts as much as a factor of two in tokens; an unknown number of
    tokens adds no distance.
    """

    def distance(row: ReferenceModel) -> float:
        return min(
            abs(log(row.parameters / model.parameters))
            + (abs(log(row.tokens / model.tokens)) if row.tokens and model.tokens else 0.0)
            for model in models
        )

    return sorted(rows, key=distance)[:limit]


def _load_or_evaluate(
    paths: Sequence[Path],
    config: EvalConfig,
    loading: LoadConfig,
    on_progress: Report,
    on_note: Report,
) -> list[ModelResult]:
    """Return every model's result: a stored one with the same settings, or a new one."""
    folders = list(map(find_checkpoint, paths))
    for folder in folders:
        check_transformers_installed(folder)
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise ValueError(f"{folder} is named twice; name each model once.")
    stored = [load_valid_results(folder, loading) for folder in folders]
    default = EvalConfig()
    if replace(config, batch_size=default.batch_size, cache_dir=default.cache_dir) == default:
        newest = [own[-1] for own in stored if own]
        if len(newest) == len(paths) and (_common_columns(newest, []) or _common_texts(newest)):
            for one in newest:
                on_note(f"{one.name}: stored result")
            return newest
    results = []
    expected = score_settings(settings_dict(config, loading))
    for number, (path, own) in enumerate(zip(paths, stored, strict=True), 1):
        same = next((one for one in own if score_settings(one.settings) == expected), None)
        if same:
            on_note(f"{same.name}: stored result")
            results.append(same)
            continue

        def show(text: str, prefix: str = f"model {number} of {len(paths)} · {path}") -> None:
            on_progress(f"{prefix} · {text}")

        show("loading")
        result = evaluate(load_eval_model(path, loading, config.add_bos), config, show)
        with best_effort("stored result"):
            write_result(result, choose_result_path(result))
        results.append(result)
    return results


def _common_columns(models: Sequence[ModelResult], notes: list[str]) -> tuple[TaskColumn, ...]:
    """Return the tasks that all models have on the same items; add notes about the others."""
    skipped: dict[str, list[str]] = {}
    for model in models:
        for what, reason in model.skipped.items():
            skipped.setdefault(reason, []).append(what)
    notes += [f"{', '.join(dict.fromkeys(what))} skipped: {why}" for why, what in skipped.items()]
    columns = []
    for task, title in {one.task: one.title for m in models for one in m.scores}.items():
        scores = [one for model in models for one in model.scores if one.task == task]
        items = []  # of each model, as text
        for model in models:
            own = next((one for one in model.scores if one.task == task), None)
            if own is None:
                items.append("none")
                continue
            files = dict(map(parse_task_file, model.settings.get("files", ())))
            source = Path(files[task]).name if task in files else "the Hub"
            shots = f", {own.shots}-shot" if own.shots else ""
            items.append(f"{own.items:,} of {source}{shots}")
        if len(set(items)) == 1:
            metric = "acc_norm" if all(one.acc_norm for one in scores) else "acc"
            one = scores[0]
            columns.append(TaskColumn(task, title, metric, one.items, one.shots, one.chance))
        else:
            each = "; ".join(f"{m.name} {what}" for m, what in zip(models, items, strict=True))
            notes.append(f"{title} is not compared, because the items differ: {each}.")
    order = list(TASKS)
    return tuple(sorted(columns, key=lambda c: order.index(c.task) if c.task in TASKS else 99))


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


def _common_texts(models: Sequence[ModelResult]) -> tuple[str, ...]:
    """Return the sources that all models were measured on, with equal names and sizes in bytes."""
    sizes = [{part.source: part.bytes for part in model.bits} for model in models]
    first = sizes[0].items() if sizes else ()
    return tuple(name for name, size in first if all(one.get(name) == size for one in sizes))
