"""Evaluation of one model: bits per byte, task accuracies, and contamination of the tasks.

    held-out text   ─▶ bits per byte of each source
    tasks           ─▶ accuracies with standard errors and the accuracy of guessing
    training shards ─▶ items that the shards contain, and the score without them

acc        The likeliest answer is the right one. For a task with one answer: each of its tokens
           is the argmax.
acc_norm   The same by log-likelihood per character, so that long answers are not at a disadvantage.
±          The standard error: the spread over other samples with the same number of items.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gnano.config.data_config import DataConfig
from gnano.config.inference_config import ALL_TASKS, EvalConfig, LoadConfig
from gnano.data.manifest import warn_empty_heldout
from gnano.data.ngram_overlap import NGramIndex
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals.bits_per_byte import BitsPerByte, mean_bits_per_byte, measure_file, measure_heldout
from gnano.evals.contamination import ContaminationReport, find_contamination
from gnano.evals.eval_tasks import TASKS, EvalItem, TaskItems, load_tasks
from gnano.evals.loglikelihood import compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel
from gnano.train.lineage import training_stages
from gnano.utils.files import atomic_write_text, dump_json
from gnano.utils.formatting import format_clock, format_table

# per choice of an item: log-likelihood in nats, and whether greedy decoding produces it
ChoiceScores = Sequence[tuple[float, bool]]
ScoredTask = tuple[TaskItems, Sequence[ChoiceScores]]  # a task and the scores of its items
Report = Callable[[str], None]


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

    @property
    def primary(self) -> Accuracy:
        """Return acc_norm if there is one, else acc."""
        return self.acc_norm or self.acc

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TaskScore":
        """Return the score that `asdict` converted."""
        norm = content["acc_norm"]
        accuracies = {"acc": Accuracy(**content["acc"]), "acc_norm": norm and Accuracy(**norm)}
        return cls(**{**content, **accuracies})


@dataclass(frozen=True, kw_only=True)
class EvalResult:
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
    def from_dict(cls, content: dict[str, Any]) -> "EvalResult":
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
            lines += ["", *_format_scores(self.scores)]
        lines += [f"skipped: {what}: {reason}" for what, reason in self.skipped.items()]
        return "\n".join(lines)


def _format_scores(scores: Sequence[TaskScore]) -> list[str]:
    rows = [("task", "items", "acc", "acc_norm", "chance", "")]
    for one in scores:
        norm = str(one.acc_norm) if one.acc_norm else ""
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        more = [f"perplexity {one.perplexity:,.1f}"] if one.perplexity is not None else []
        more += [f"{one.shots}-shot"] if one.shots else []
        rows.append((one.title, f"{one.items:,}", str(one.acc), norm, chance, "  ".join(more)))
    lines = format_table(rows, left=(0, 2, 3, 5))
    for number, one in reversed([*enumerate(scores, 2)]):
        if one.contamination:
            lines.insert(number, f"  {format_contamination(one)}")
    return lines


def evaluate(
    model: EvalModel,
    config: EvalConfig,
    on_progress: Report = lambda _: None,
    on_note: Report = lambda _: None,
) -> EvalResult:
    """Measure everything in `config`; `on_note` receives what is skipped and why.

    Raises ValueError or OSError if something named in `config` is not available. With "all" tasks,
    those that cannot be downloaded are skipped.
    """
    started_at = time.monotonic()
    skipped: dict[str, str] = {}
    tasks = _load_requested_tasks(config, skipped, on_progress)
    corpus = _open_corpus(model, config, skipped)
    if config.check_contamination and corpus is None:
        raise ValueError("The check for contamination needs the training data: --data DIR.")
    if corpus and (warnings := warn_empty_heldout(corpus.folder, corpus.manifest)):
        skipped["held-out text"] = " ".join(warnings)
    for what, reason in skipped.items():
        on_note(f"{what} skipped: {reason}")
    bits: list[BitsPerByte] = []
    rows = max(1, config.batch_size // 4)  # each as long as the context
    if corpus is not None:
        bits += measure_heldout(model, corpus, config.heldout_tokens, rows, on_progress)
    bits += [measure_file(model, path, rows, on_progress) for path in config.text]
    scored = [(task, _run_task(model, task, config.batch_size, on_progress)) for task in tasks]
    if config.check_contamination and corpus is not None:
        scores = score_with_contamination(scored, corpus, on_progress)
    else:
        scores = [score_task(task, choice_scores) for task, choice_scores in scored]
    return EvalResult(
        name=model.name,
        folder=str(model.folder),
        parameters=model.parameters,
        tokens=model.training_tokens,
        bits=tuple(bits),
        scores=tuple(scores),
        skipped=skipped,
        settings=settings_dict(config, model.loading),
        seconds=time.monotonic() - started_at,
    )


def _load_requested_tasks(
    config: EvalConfig, skipped: dict[str, str], on_progress: Report
) -> list[TaskItems]:
    common = config.limit, config.shots, config.cache_dir, on_progress
    names = [name for name in config.task_names if name not in (ALL_TASKS, "none")]
    tasks = load_tasks(names, config.files, *common)
    if ALL_TASKS not in config.task_names:
        return tasks
    offline = ""
    loaded = {one.task for one in tasks}
    for name in [name for name in TASKS if name not in loaded]:
        try:
            if offline:
                raise ConnectionError(offline)
            tasks += load_tasks([name], (), *common)
        except (ValueError, OSError) as error:
            skipped[name] = str(error)
            offline = str(error) if isinstance(error, ConnectionError) else ""
    return sorted(tasks, key=lambda one: list(TASKS).index(one.task) if one.spec else len(TASKS))


def _open_corpus(
    model: EvalModel, config: EvalConfig, skipped: dict[str, str]
) -> TokenizedCorpus | None:
    """Open the configured data folder, or the one the model's run was trained on."""
    if config.data is not None:
        return TokenizedCorpus(config.data)
    for stage in training_stages(model.folder):
        if isinstance(stage.recipe.data, DataConfig):
            try:
                return TokenizedCorpus(Path(stage.recipe.data.folder))
            except (ValueError, OSError) as error:
                skipped["held-out text"] = str(error)
    return None


def _run_task(
    model: EvalModel, task: TaskItems, batch_size: int, on_progress: Report
) -> list[ChoiceScores]:
    on_progress(f"{task.title}: encoding {len(task.items):,} items")
    items = model.encoder.encode_items(task.items)
    started_at = time.monotonic()

    def show_progress(done: int) -> None:
        seconds_each = (time.monotonic() - started_at) / done if done else 0.0
        left = f" · {format_clock(seconds_each * (len(items) - done))} left" if done else ""
        on_progress(f"{task.title}: {done:,} of {len(items):,} items{left}")

    return [*compute_loglikelihoods(model.scorer, items, batch_size, show_progress)]


def settings_dict(config: EvalConfig, loading: LoadConfig) -> dict[str, Any]:
    """Return the settings in the form in which JSON stores them."""
    content = {**asdict(config), "loading": {"dtype": loading.dtype, "quant": loading.quant}}
    settings: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return settings


def write_result(result: EvalResult, path: Path) -> None:
    """Write the result as JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{result.to_json()}\n")


def score_task(task: TaskItems, choice_scores: Sequence[ChoiceScores]) -> TaskScore:
    """Return the score of a task from the scores of each item's choices."""
    correct = [is_correct(item, one) for item, one in zip(task.items, choice_scores, strict=True)]
    count = len(task.items)
    is_single = all(len(item.choices) == 1 for item in task.items)
    nats = -sum(choices[0][0] for choices in choice_scores) / len(choice_scores)
    chances = [1 / len(i.choices) if len(i.choices) > 1 else 0.0 for i in task.items]
    norm = Accuracy.from_counts(sum(by_length for _, by_length in correct), count)
    return TaskScore(
        task=task.task,
        title=task.title,
        items=count,
        shots=task.shots,
        chance=sum(chances) / len(chances),
        acc=Accuracy.from_counts(sum(plain for plain, _ in correct), count),
        acc_norm=norm if task.has_acc_norm else None,
        perplexity=math.exp(min(nats, 700.0)) if is_single else None,
    )


def is_correct(item: EvalItem, choice_scores: ChoiceScores) -> tuple[bool, bool]:
    """Return whether the gold choice wins by log-likelihood, and by that per character."""
    if len(choice_scores) == 1:
        return choice_scores[0][1], choice_scores[0][1]
    nats = [one for one, _ in choice_scores]
    lengths = [len(answer) for answer in item.answers] * (len(nats) // len(item.answers))
    per_character = [one / length for one, length in zip(nats, lengths, strict=True)]
    # `index` takes the first of equals
    return (
        nats.index(max(nats)) == item.gold,
        per_character.index(max(per_character)) == item.gold,
    )


def score_with_contamination(
    scored_tasks: Sequence[ScoredTask],
    corpus: TokenizedCorpus,
    on_progress: Report = lambda _: None,
) -> list[TaskScore]:
    """Return the score of each task, with the number of its items that the training shards contain.

    The shards are read once for the items of all tasks.
    """
    items = [item.full_text for task, _ in scored_tasks for item in task.items]
    report = find_contamination(corpus, items, lambda text: on_progress(f"training shards: {text}"))
    scores, first = [], 0
    for task, choice_scores in scored_tasks:
        scores.append(_score_clean_items(task, choice_scores, report, first))
        first += len(task.items)
    return scores


def _score_clean_items(
    task: TaskItems, choice_scores: Sequence[ChoiceScores], report: ContaminationReport, first: int
) -> TaskScore:
    """Score a task whose items have the numbers from `first` on in `report`."""
    own = range(first, first + len(task.items))
    found = {number - first for number in report.contaminated_items if number in own}
    clean = [number for number in range(len(task.items)) if number not in found]
    content: dict[str, Any] = {
        "checked": len(NGramIndex([item.full_text for item in task.items]).items_with_ngrams),
        "found": len(found),
        "examples": [
            asdict(replace(one, item=one.item - first))
            for one in report.examples
            if one.item in own
        ],
        "clean": None,
    }
    if found and clean:
        part = replace(task, items=tuple(task.items[number] for number in clean))
        content["clean"] = asdict(score_task(part, [choice_scores[number] for number in clean]))
    return replace(score_task(task, choice_scores), contamination=content)


def format_contamination(score: TaskScore) -> str:
    """Return the contamination of a score as a line of text."""
    assert score.contamination is not None
    found, checked = score.contamination["found"], score.contamination["checked"]
    line = f"{found:,} of its {checked:,} items of 13 words or more are in the training shards"
    if clean := score.contamination["clean"]:
        name = "acc_norm" if score.acc_norm else "acc"
        line += f"; {name} {TaskScore.from_dict(clean).primary} without them"
    return line
