"""Evaluation of one model: bits per byte, accuracy on tasks, overlap of those with training data.

    held-out text   ─▶ bits per byte of each source
    tasks           ─▶ accuracies with their errors, beside that of a guess
    training shards ─▶ which items they contain, and the score without those

acc        the likeliest answer is the right one; of a task of one answer: each of its tokens
           was the likeliest
acc_norm   the same by log-likelihood per character, so that long answers are not worse off
±          the standard error: what another sample of as many items would differ by
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gnano.config.data_config import DataConfig
from gnano.config.eval_config import ALL_TASKS, EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.data.manifest import warn_empty_heldout
from gnano.data.ngram_overlap import NGramIndex
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.bits_per_byte import BitsPerByte, mean_bits_per_byte, measure_file, measure_heldout
from gnano.evals.contamination import ContaminationReport, find_contamination
from gnano.evals.eval_tasks import TASKS, EvalItem, TaskItems, load_tasks
from gnano.evals.loglikelihood import compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel
from gnano.train.lineage import training_stages
from gnano.utils.atomic_io import atomic_write_text
from gnano.utils.progress import format_clock
from gnano.utils.text import dump_json

ChoiceScores = Sequence[tuple[float, bool]]  # of an item's options: nats, each token the likeliest?
ScoredTask = tuple[
    TaskItems, Sequence[ChoiceScores]
]  # a task's items, and what a model found of each
Report = Callable[[str], None]


@dataclass(frozen=True)
class Accuracy:
    value: float
    stderr: float  # standard error; 0 of a single item

    @classmethod
    def from_counts(cls, num_correct: float, num_items: int) -> "Accuracy":
        mean = num_correct / num_items
        return cls(mean, math.sqrt(mean * (1 - mean) / max(1, num_items - 1)))

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    task: str
    title: str
    items: int
    shots: int
    chance: float | None  # accuracy of a guess; None where that is unknown
    acc: Accuracy
    acc_norm: Accuracy | None  # None where length says nothing
    perplexity: float | None = None  # per answer, of a task of one answer
    contamination: dict[str, Any] | None = None  # with the training data, if that was searched

    @property
    def primary(self) -> Accuracy:
        return self.acc_norm or self.acc

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TaskScore":
        norm = content["acc_norm"]
        accuracies = {"acc": Accuracy(**content["acc"]), "acc_norm": norm and Accuracy(**norm)}
        return cls(**{**content, **accuracies})


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    name: str
    folder: str
    parameters: int
    tokens: int | None  # that it was trained on
    bits: tuple[BitsPerByte, ...] = ()
    scores: tuple[TaskScore, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)  # what was not measured, and why
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Mean over all sources' bytes."""
        return mean_bits_per_byte(self.bits) if self.bits else None

    def to_json(self) -> str:
        return dump_json({**asdict(self), "bits_per_byte": self.bits_per_byte}, indent=1)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "EvalResult":
        known = {k: v for k, v in content.items() if k != "bits_per_byte"}
        bits = tuple(BitsPerByte(**part) for part in known.pop("bits"))
        return cls(bits=bits, scores=tuple(map(TaskScore.from_dict, known.pop("scores"))), **known)

    def format_table(self) -> str:
        """Return the evaluation as text for a terminal."""
        trained = f" · {self.tokens / 1e6:,.1f} M tokens" if self.tokens else ""
        lines = [f"{self.name} · {self.parameters:,} parameters{trained}"]
        if self.bits:
            rows = [(part.source, part.bits_per_byte, part.bytes) for part in self.bits]
            if len(rows) > 1:
                rows.append(
                    ("all", mean_bits_per_byte(self.bits), sum(part.bytes for part in self.bits))
                )
            width = max(len("held-out text"), *(len(row[0]) for row in rows))
            lines += ["", f"{'held-out text':<{width}}  bits/byte      bytes"]
            lines += [f"{name:<{width}}  {bits:9.4f}  {size:9,}" for name, bits, size in rows]
        if self.scores:
            lines += ["", *_format_scores(self.scores)]
        lines += [f"left out: {what}: {why}" for what, why in self.skipped.items()]
        return "\n".join(lines)


def evaluate(
    model: EvalModel,
    config: EvalConfig,
    on_progress: Report = lambda _: None,
    on_note: Report = lambda _: None,
) -> EvalResult:
    """Measure everything; `show` gets the progress, `note` what is left out and why.

    What was named and is not available is a ValueError or OSError; of all tasks, those that cannot
    be reached are left out.
    """
    began = time.monotonic()
    left_out: dict[str, str] = {}
    sheets = _load_requested_tasks(config, left_out, on_progress)
    corpus = _open_corpus(model, config, left_out)
    if config.check_contamination and corpus is None:
        raise ValueError("Name the training data to look for the items in it: --data DIR.")
    if corpus and (unmeasured := warn_empty_heldout(corpus.folder, corpus.manifest)):
        left_out["held-out text"] = " ".join(unmeasured)
    for what, why in left_out.items():
        on_note(f"{what} left out: {why}")
    bits: list[BitsPerByte] = []
    rows = max(1, config.batch_size // 4)  # of a whole context each
    if corpus is not None:
        bits += measure_heldout(model, corpus, config.heldout_tokens, rows, on_progress)
    bits += [measure_file(model, path, rows, on_progress) for path in config.text]
    answered = [
        (sheet, _run_task(model, sheet, config.batch_size, on_progress)) for sheet in sheets
    ]
    if config.check_contamination and corpus is not None:
        scores = score_with_contamination(answered, corpus, on_progress)
    else:
        scores = [score_task(sheet, found) for sheet, found in answered]
    return EvalResult(
        name=model.name,
        folder=str(model.folder),
        parameters=model.parameters,
        tokens=model.training_tokens,
        bits=tuple(bits),
        scores=tuple(scores),
        skipped=left_out,
        settings=settings_dict(config, model.loading),
        seconds=time.monotonic() - began,
    )


def settings_dict(config: EvalConfig, loading: LoadConfig) -> dict[str, Any]:
    """Return the settings as JSON holds them."""
    kept = {"dtype": loading.dtype, "quant": loading.quant}
    settings: dict[str, Any] = json.loads(
        json.dumps({**asdict(config), "loading": kept}, default=str)
    )
    return settings


def write_result(result: EvalResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{result.to_json()}\n")


def score_task(task: TaskItems, choice_scores: Sequence[ChoiceScores]) -> TaskScore:
    """Return the score of a task from the likelihoods of each item's options."""
    each = [is_correct(item, nats) for item, nats in zip(task.items, choice_scores, strict=True)]
    count = len(task.items)
    single = all(len(item.choices) == 1 for item in task.items)
    nats = -sum(options[0][0] for options in choice_scores) / len(choice_scores)
    guess = [1 / len(i.choices) if len(i.choices) > 1 else 0.0 for i in task.items]
    return TaskScore(
        task=task.task,
        title=task.title,
        items=count,
        shots=task.shots,
        chance=sum(guess) / len(guess),
        acc=Accuracy.from_counts(sum(plain for plain, _ in each), count),
        acc_norm=Accuracy.from_counts(sum(n for _, n in each), count)
        if task.has_acc_norm
        else None,
        perplexity=math.exp(min(nats, 700.0)) if single else None,
    )


def is_correct(item: EvalItem, choice_scores: ChoiceScores) -> tuple[bool, bool]:
    """Tell whether the right answer wins: by log-likelihood, and by that per character."""
    if len(choice_scores) == 1:
        return choice_scores[0][1], choice_scores[0][1]
    nats = [one for one, _ in choice_scores]
    lengths = [len(answer) for answer in item.answers] * (len(nats) // len(item.answers))
    each = [one / length for one, length in zip(nats, lengths, strict=True)]
    # `index` takes the first of equals
    return nats.index(max(nats)) == item.gold, each.index(max(each)) == item.gold


def score_with_contamination(
    scored_tasks: Sequence[ScoredTask],
    corpus: TokenizedCorpus,
    on_progress: Report = lambda _: None,
) -> list[TaskScore]:
    """Return the score of each task, with how many of its items the training shards contain.

    The shards are read once, for the items of all tasks.
    """
    items = [item.full_text for sheet, _ in scored_tasks for item in sheet.items]
    overlap = find_contamination(
        corpus, items, lambda text: on_progress(f"training shards: {text}")
    )
    scores, first = [], 0
    for sheet, found in scored_tasks:
        scores.append(_score_clean_items(sheet, found, overlap, first))
        first += len(sheet.items)
    return scores


def _score_clean_items(
    task: TaskItems, choice_scores: Sequence[ChoiceScores], overlap: ContaminationReport, first: int
) -> TaskScore:
    """Score a task whose items are those from number `first` on in `overlap`."""
    own = range(first, first + len(task.items))
    seen = {number - first for number in overlap.contaminated_items if number in own}
    rest = [number for number in range(len(task.items)) if number not in seen]
    examples = [e for e in overlap.examples if e.item in own]
    content: dict[str, Any] = {
        "checked": len(NGramIndex([item.full_text for item in task.items]).items_with_ngrams),
        "found": len(seen),
        "examples": [asdict(replace(one, item=one.item - first)) for one in examples],
        "clean": None,
    }
    if seen and rest:
        part = replace(task, items=tuple(task.items[number] for number in rest))
        content["clean"] = asdict(score_task(part, [choice_scores[number] for number in rest]))
    return replace(score_task(task, choice_scores), contamination=content)


def format_contamination(score: TaskScore) -> str:
    """Return the overlap of a score as a line of text."""
    assert score.contamination is not None
    found, checked = score.contamination["found"], score.contamination["checked"]
    line = f"{found:,} of its {checked:,} items of 13 words or more stand in the training shards"
    if clean := score.contamination["clean"]:
        name = "acc_norm" if score.acc_norm else "acc"
        line += f"; {name} {TaskScore.from_dict(clean).primary} without them"
    return line


def _run_task(
    model: EvalModel, task: TaskItems, batch_size: int, on_progress: Report
) -> list[ChoiceScores]:
    on_progress(f"{task.title}: reading {len(task.items):,} items")
    questions = model.encoder.encode_items(task.items)
    began = time.monotonic()

    def show_progress(done: int) -> None:
        each = (time.monotonic() - began) / done if done else 0.0
        left = f" · {format_clock(each * (len(questions) - done))} left" if done else ""
        on_progress(f"{task.title}: {done:,} of {len(questions):,} items{left}")

    return [*compute_loglikelihoods(model.scorer, questions, batch_size, show_progress)]


def _load_requested_tasks(
    config: EvalConfig, skipped: dict[str, str], on_progress: Report
) -> list[TaskItems]:
    common = config.limit, config.shots, config.cache_dir, on_progress
    names = [name for name in config.task_names if name not in (ALL_TASKS, "none")]
    sheets = load_tasks(names, config.files, *common)
    if ALL_TASKS not in config.task_names:
        return sheets
    offline = ""
    loaded = {sheet.task for sheet in sheets}
    for task in [name for name in TASKS if name not in loaded]:
        try:
            if offline:
                raise ConnectionError(offline)
            sheets += load_tasks([task], (), *common)
        except (ValueError, OSError) as error:
            skipped[task] = str(error)
            offline = str(error) if isinstance(error, ConnectionError) else ""
    return sorted(sheets, key=lambda s: list(TASKS).index(s.task) if s.spec else len(TASKS))


def _open_corpus(
    model: EvalModel, config: EvalConfig, skipped: dict[str, str]
) -> TokenizedCorpus | None:
    """Open the data folder that was named, or that of the model's own run."""
    if config.data is not None:
        return TokenizedCorpus(config.data)
    for stage in training_stages(model.folder):
        if isinstance(stage.recipe.data, DataConfig):
            try:
                return TokenizedCorpus(Path(stage.recipe.data.folder))
            except (ValueError, OSError) as error:
                skipped["held-out text"] = str(error)
    return None


def _format_scores(scores: Sequence[TaskScore]) -> list[str]:
    width = max(len("task"), *(len(one.title) for one in scores))
    lines = [f"{'task':<{width}}   items  {'acc':<13}  {'acc_norm':<13}  chance"]
    for one in scores:
        norm = str(one.acc_norm) if one.acc_norm else ""
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        more = f"  perplexity {one.perplexity:,.1f}" if one.perplexity is not None else ""
        more += f"  {one.shots}-shot" if one.shots else ""
        lines.append(
            f"{one.title:<{width}}  {one.items:6,}  {one.acc!s:<13}  {norm:<13}  "
            f"{chance:>6}{more}".rstrip()
        )
        if one.contamination:
            lines.append(f"{'':<{width}}  {format_contamination(one)}")
    return lines
