"""Accuracy on tasks while a model trains, on a part of each task, shared among the ranks.

Every rank scores its share of the batches and the numbers of right answers are added up, so that
any number of ranks finds the same. All ranks assemble a sharded model together, so each of them
runs it equally often.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gnano.config.recipe import Recipe
from gnano.evals.eval_tasks import TaskItems, load_tasks
from gnano.evals.loglikelihood import EncodedItem, GPTScorer, make_batches
from gnano.evals.model_adapter import RequestEncoder
from gnano.evals.runner import Accuracy, is_correct
from gnano.model.devices import accumulation_dtype
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import TaskEvaluator, eval_mode, sum_over_ranks

QuestionBatch = tuple[list[int], bool]  # numbers of the questions, and whether they count


def build_task_evaluator(recipe: Recipe, tokenizer: Tokenizer, world: DistContext) -> TaskEvaluator:
    """Return the evaluator of `train.eval_tasks`; the first rank reads or downloads the items."""
    settings = recipe.train
    files = [name for name in settings.eval_tasks if "=" in name or "/" in name or "." in name]
    names = [name for name in settings.eval_tasks if name not in files]
    sheets = world.run_on_main(partial(load_tasks, names, files, settings.eval_tasks_limit))
    wording = RequestEncoder.for_gpt(tokenizer, recipe.model.block_size)
    tasks = [(sheet, wording.encode_items(sheet.items)) for sheet in sheets]
    return partial(_evaluate_tasks, tasks, 4 * settings.micro_batch_size)


def _evaluate_tasks(
    tasks: list[tuple[TaskItems, list[EncodedItem]]],
    batch_size: int,
    model: GPT,
    world: DistContext,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    found = {}
    with eval_mode(model):
        for sheet, questions in tasks:
            work = partial(_count_correct, GPTScorer(model), sheet, questions)
            parts = list(make_batches(questions, batch_size))
            empty: QuestionBatch = (parts[-1], False)
            sums = sum_over_ranks(
                work, ((p, True) for p in parts), len(parts), empty, world, should_stop
            )
            found[sheet.task] = _task_metrics(sheet, *sums)
    return found


def _count_correct(
    scorer: GPTScorer, task: TaskItems, items: list[EncodedItem], batch: QuestionBatch
) -> Tensor:
    """Return how many items of a batch are right, and how many by character: [2]."""
    numbers, counts = batch
    pairs = iter(scorer.score_choices([items[number] for number in numbers]).tolist())
    total = torch.zeros(2, dtype=accumulation_dtype(scorer.device), device=scorer.device)
    for number in numbers:
        options = islice(pairs, len(items[number].choices))
        known = [(-nats, missed == 0) for nats, missed in options]
        total += torch.tensor(is_correct(task.items[number], known), device=total.device)
    return total if counts else torch.zeros_like(total)


def _task_metrics(task: TaskItems, num_correct: float, num_correct_norm: float) -> dict[str, Any]:
    count = len(task.items)
    acc, norm = (Accuracy.from_counts(number, count) for number in (num_correct, num_correct_norm))
    metrics = {"items": count, "acc": round(acc.value, 5)}
    if task.has_acc_norm:
        metrics["acc_norm"] = round(norm.value, 5)
    return {**metrics, "error": round((norm if task.has_acc_norm else acc).stderr, 5)}
