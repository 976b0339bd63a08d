"""Evaluation of a model: bits per byte, task accuracies, and contamination of the tasks.

    held-out text   ─▶ bits per byte of each source
    tasks           ─▶ accuracies with standard errors and the accuracy of guessing
    training shards ─▶ items that the shards contain, and the score without them

Bits per byte is the negative log-likelihood of all tokens in bits, divided by the number of UTF-8
bytes they encode, so models with different tokenizers (and compressors) can be compared. Documents
follow one another, as in training, and are split at the model's context length. A model with
another tokenizer gets the decoded documents, which it encodes itself.

acc        The likeliest answer is the right one. For a task with one answer: each of its tokens
           is the argmax.
acc_norm   The same by log-likelihood per character, so that long answers are not at a disadvantage.
±          The standard error: the spread over other samples with the same number of items.

During training, the accuracies of `train.eval_tasks` are computed on a part of each task. Every
rank scores its share of the batches and the counts of right answers are summed, so the result does
not depend on the number of ranks. All ranks gather a sharded model together, so each of them runs
it equally often.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby, islice, starmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnano.config.data_config import DataConfig
from gnano.config.inference_config import ALL_TASKS, EvalConfig
from gnano.config.recipe import Recipe
from gnano.data.manifest import warn_empty_heldout
from gnano.data.packed_dataset import TokenizedCorpus, heldout_row_starts
from gnano.data.readers import read_texts
from gnano.evals.contamination import find_contamination
from gnano.evals.eval_tasks import TASKS, EvalItem, TaskItems, load_tasks
from gnano.evals.loglikelihood import (
    EncodedChoice,
    EncodedItem,
    GPTScorer,
    compute_loglikelihoods,
    make_batches,
)
from gnano.evals.model_adapter import EvalModel, RequestEncoder
from gnano.evals.result_store import Accuracy, BitsPerByte, ModelResult, TaskScore, settings_dict
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import TaskEvaluator, eval_mode, sum_over_ranks
from gnano.train.lineage import training_stages
from gnano.utils.formatting import format_clock
from gnano.utils.platform_support import accumulation_dtype

MAX_EXAMPLES = 20  # contaminated items reported with the shared words
# per choice of an item: log-likelihood in nats, and whether greedy decoding produces it
ChoiceScores = Sequence[tuple[float, bool]]
ScoredTask = tuple[TaskItems, Sequence[ChoiceScores]]  # a task and the scores of its items
Report = Callable[[str], None]


def evaluate(
    model: EvalModel,
    config: EvalConfig,
    on_progress: Report = lambda _: None,
    on_note: Report = lambda _: None,
) -> ModelResult:
    """Measure everything in `config`; `on_note` receives what is skipped and why.

    Raises ValueError or OSError if something named in `config` is not available.
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
    return ModelResult(
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
    """Load the tasks; with "all", those that cannot be downloaded are skipped."""
    common = config.limit, config.shots, config.cache_dir, on_progress
    names = [name for name in config.task_names if name not in (ALL_TASKS, "none")]
    tasks = load_tasks(names, config.files, *common)
    if ALL_TASKS not in config.task_names:
        return tasks
    offline = ""
    missing = [name for name in TASKS if name not in {one.task for one in tasks}]
    for name in missing:
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


def measure_heldout(
    model: EvalModel,
    corpus: TokenizedCorpus,
    max_tokens: int = 0,
    batch_size: int = 8,
    on_progress: Report = lambda _: None,
) -> list[BitsPerByte]:
    """Measure the first `max_tokens` tokens (0: all) of each source's held-out documents."""
    results = []
    tokenizer = corpus.tokenizer
    for number, name in enumerate(corpus.source_names):
        ids = corpus.heldout_tokens(number)[: max_tokens or None].tolist()
        if len(ids) < 2:
            continue
        if model.tokenizer and model.tokenizer.fingerprint == tokenizer.fingerprint:
            num_bytes = int(tokenizer.token_bytes[ids].sum())
        else:
            documents = groupby(ids, tokenizer.end_of_text_id.__eq__)
            texts = [tokenizer.decode_bytes(list(part)) for is_end, part in documents if not is_end]
            num_bytes = sum(map(len, texts))
            ids = _encode_documents(model, (text.decode("utf-8", "replace") for text in texts))
        results.append(_measure_ids(model, name, ids, num_bytes, batch_size, on_progress))
    return results


def measure_file(
    model: EvalModel, path: Path, batch_size: int = 8, on_progress: Report = lambda _: None
) -> BitsPerByte:
    """Measure a text file, or the `text` column of a JSONL, CSV or Parquet file."""
    texts = list(read_texts(path, "text"))
    if not texts:
        raise ValueError(f"{path} contains no text.")
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    ids = _encode_documents(model, texts)
    return _measure_ids(model, path.name, ids, num_bytes, batch_size, on_progress)


def _encode_documents(model: EvalModel, texts: Iterable[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [*model.encoder.document_bos, *model.encoder.encode(text)]
    return ids


def _measure_ids(
    model: EvalModel,
    name: str,
    ids: Sequence[int],
    num_bytes: int,
    batch_size: int,
    on_progress: Report,
) -> BitsPerByte:
    length = model.scorer.block_size
    rows = []
    num_scored = 0  # tokens scored by earlier rows
    for start in heldout_row_starts(len(ids), length):
        row = tuple(ids[start : start + length + 1])
        last = start + len(row) - 1
        rows.append((EncodedChoice(row, last - num_scored),))
        num_scored = last
    scores = compute_loglikelihoods(
        model.scorer,
        rows,
        batch_size,
        lambda done: on_progress(f"{name}: {done:,} of {len(rows):,} rows"),
    )
    nats = -sum(choices[0][0] for choices in scores)
    return BitsPerByte(name, nats / math.log(2) / num_bytes, num_bytes, len(ids))


def _run_task(
    model: EvalModel, task: TaskItems, batch_size: int, on_progress: Report
) -> list[list[tuple[float, bool]]]:
    on_progress(f"{task.title}: encoding {len(task.items):,} items")
    items = model.encoder.encode_items(task.items)
    started_at = time.monotonic()

    def show_progress(done: int) -> None:
        seconds_each = (time.monotonic() - started_at) / done if done else 0.0
        left = f" · {format_clock(seconds_each * (len(items) - done))} left" if done else ""
        on_progress(f"{task.title}: {done:,} of {len(items):,} items{left}")

    return compute_loglikelihoods(model.scorer, items, batch_size, show_progress)


def score_task(task: TaskItems, choice_scores: Sequence[ChoiceScores]) -> TaskScore:
    """Return the score of a task from the scores of each item's choices."""
    correct = starmap(is_correct, zip(task.items, choice_scores, strict=True))
    count = len(task.items)
    acc, norm = (Accuracy.from_counts(sum(one), count) for one in zip(*correct, strict=True))
    is_single = all(len(item.choices) == 1 for item in task.items)
    nats = -sum(choices[0][0] for choices in choice_scores) / count
    chances = [1 / len(i.choices) if len(i.choices) > 1 else 0.0 for i in task.items]
    return TaskScore(
        task=task.task,
        title=task.title,
        items=count,
        shots=task.shots,
        chance=sum(chances) / count,
        acc=acc,
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
    checked, shared = find_contamination(
        corpus, items, lambda text: on_progress(f"training shards: {text}")
    )
    scores, first = [], 0  # number of the task's first item in all of them
    for task, choice_scores in scored_tasks:
        own = range(first, first + len(task.items))
        examples = [one for one in islice(shared.values(), MAX_EXAMPLES) if one.item in own]
        clean = [n - first for n in own if n not in shared]
        contamination: dict[str, Any] = {
            "checked": len(checked.intersection(own)),
            "found": len(own) - len(clean),
            "examples": [asdict(replace(one, item=one.item - first)) for one in examples],
            "clean": None,
        }
        if 0 < len(clean) < len(own):
            part = replace(task, items=tuple(task.items[number] for number in clean))
            clean_scores = [choice_scores[number] for number in clean]
            contamination["clean"] = asdict(score_task(part, clean_scores))
        scores.append(replace(score_task(task, choice_scores), contamination=contamination))
        first += len(task.items)
    return scores


def build_task_evaluator(recipe: Recipe, tokenizer: Tokenizer, world: DistContext) -> TaskEvaluator:
    """Return the evaluator of `train.eval_tasks`; the main rank reads or downloads the items."""
    config = recipe.train
    files = [name for name in config.eval_tasks if "=" in name or "/" in name or "." in name]
    names = [name for name in config.eval_tasks if name not in files]
    loaded = world.run_on_main(partial(load_tasks, names, files, config.eval_tasks_limit))
    encoder = RequestEncoder.for_gpt(tokenizer, recipe.model.block_size)
    tasks = [(task, encoder.encode_items(task.items)) for task in loaded]
    return partial(_evaluate_tasks, tasks, 4 * config.micro_batch_size)


def _evaluate_tasks(
    tasks: list[tuple[TaskItems, list[EncodedItem]]],
    batch_size: int,
    model: GPT,
    world: DistContext,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    results = {}
    with eval_mode(model):
        for task, items in tasks:
            count_correct = partial(_count_correct, GPTScorer(model), task, items)
            batches = list(make_batches(items, batch_size))
            counted = ((batch, True) for batch in batches)
            empty = (batches[-1], False)
            sums = sum_over_ranks(count_correct, counted, len(batches), empty, world, should_stop)
            acc, norm = (Accuracy.from_counts(num_correct, len(items)) for num_correct in sums)
            metrics = {"items": len(items), "acc": round(acc.value, 5)}
            if task.has_acc_norm:
                metrics["acc_norm"] = round(norm.value, 5)
            metrics["error"] = round((norm if task.has_acc_norm else acc).stderr, 5)
            results[task.task] = metrics
    return results


def _count_correct(
    scorer: GPTScorer, task: TaskItems, items: list[EncodedItem], batch: tuple[list[int], bool]
) -> Tensor:
    """Return the numbers of right answers by log-likelihood and per character: [2].

    A batch is the numbers of its items, and whether they count.
    """
    numbers, counts = batch
    pairs = iter(scorer.score_choices([items[number] for number in numbers]).tolist())
    total = torch.zeros(2, dtype=accumulation_dtype(scorer.device), device=scorer.device)
    for number in numbers:
        own = islice(pairs, len(items[number]))
        scores = [(-nats, missed == 0) for nats, missed in own]
        total += torch.tensor(is_correct(task.items[number], scores), device=total.device)
    return total if counts else torch.zeros_like(total)
