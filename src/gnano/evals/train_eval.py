"""Task accuracy during training, on a part of each task, shared among the ranks.

Every rank scores its share of the batches and the counts of right answers are summed, so the result
does not depend on the number of ranks. All ranks gather a sharded model together, so each of them
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
from gnano.train.evaluator import TaskEvaluator, eval_mode, sum_over_ranks

ItemBatch = tuple[list[int], bool]  # item numbers, and whether they count


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
            count = partial(_count_correct, GPTScorer(model), task, items)
            batches = list(make_batches(items, batch_size))
            empty: ItemBatch = (batches[-1], False)
            counted = ((batch, True) for batch in batches)
            sums = sum_over_ranks(count, counted, len(batches), empty, world, should_stop)
            results[task.task] = _task_metrics(task, *sums)
    return results


def _count_correct(
    scorer: GPTScorer, task: TaskItems, items: list[EncodedItem], batch: ItemBatch
) -> Tensor:
    """Return the numbers of right answers by log-likelihood and per character: [2]."""
    numbers, counts = batch
    pairs = iter(scorer.score_choices([items[number] for number in numbers]).tolist())
    total = torch.zeros(2, dtype=accumulation_dtype(scorer.device), device=scorer.device)
    for number in numbers:
        own = islice(pairs, len(items[number].choices))
        scores = [(-nats, missed == 0) for nats, missed in own]
        total += torch.tensor(is_correct(task.items[number], scores), device=total.device)
    return total if counts else torch.zeros_like(total)


def _task_metrics(task: TaskItems, num_correct: float, num_correct_norm: float) -> dict[str, Any]:
    count = len(task.items)
    acc, norm = (Accuracy.from_counts(number, count) for number in (num_correct, num_correct_norm))
    metrics = {"items": count, "acc": round(acc.value, 5)}
    if task.has_acc_norm:
        metrics["acc_norm"] = round(norm.value, 5)
    return {**metrics, "error": round((norm if task.has_acc_norm else acc).stderr, 5)}
