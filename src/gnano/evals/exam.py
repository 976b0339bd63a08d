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

from gnano.evals.evaluation import Accuracy, right
from gnano.evals.gathering import Sheet, gather
from gnano.evals.likelihood import GPTReader, Question, batches
from gnano.evals.subject import Wording
from gnano.model.devices import widest_dtype
from gnano.model.gpt import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.heldout import Exam, add_up, evaluating
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe

Batch = tuple[list[int], bool]  # numbers of the questions, and whether they count


def open_exam(recipe: Recipe, tokenizer: Tokenizer, world: World) -> Exam:
    """Return the evaluator of `train.tasks`; the first rank reads or downloads the items."""
    settings = recipe.train
    files = [name for name in settings.tasks if "=" in name or "/" in name or "." in name]
    names = [name for name in settings.tasks if name not in files]
    sheets = world.by_first(partial(gather, names, files, settings.tasks_limit))
    wording = Wording.ours(tokenizer, recipe.model.block_size)
    tasks = [(sheet, wording.questions(sheet.items)) for sheet in sheets]
    return partial(_evaluate_tasks, tasks, 4 * settings.micro_batch)


def _evaluate_tasks(
    tasks: list[tuple[Sheet, list[Question]]],
    rows: int,
    model: GPT,
    world: World,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    found = {}
    with evaluating(model):
        for sheet, questions in tasks:
            work = partial(_count_right, GPTReader(model), sheet, questions)
            parts = list(batches(questions, rows))
            empty: Batch = (parts[-1], False)
            sums = add_up(work, ((p, True) for p in parts), len(parts), empty, world, stop)
            found[sheet.task] = _metrics(sheet, *sums)
    return found


def _count_right(
    reader: GPTReader, sheet: Sheet, questions: list[Question], batch: Batch
) -> Tensor:
    """Return how many items of a batch are right, and how many by character: [2]."""
    numbers, counts = batch
    pairs = iter(reader.score_options([questions[number] for number in numbers]).tolist())
    total = torch.zeros(2, dtype=widest_dtype(reader.device), device=reader.device)
    for number in numbers:
        options = islice(pairs, len(questions[number].options))
        known = [(-nats, missed == 0) for nats, missed in options]
        total += torch.tensor(right(sheet.items[number], known), device=total.device)
    return total if counts else torch.zeros_like(total)


def _metrics(sheet: Sheet, right_count: float, right_by_character: float) -> dict[str, Any]:
    count = len(sheet.items)
    acc, norm = (Accuracy.share(number, count) for number in (right_count, right_by_character))
    metrics = {"items": count, "acc": round(acc.value, 5)}
    if sheet.normalised:
        metrics["acc_norm"] = round(norm.value, 5)
    return {**metrics, "error": round((norm if sheet.normalised else acc).error, 5)}
