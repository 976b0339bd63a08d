"""How well does a model do on tasks while it learns? A part of each, shared among the ranks.

Every rank asks its share of the batches, and what was right is added up, so that any number of
ranks finds the same. A sharded model is put together by all of them, so each asks as often.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gnano.evals.asking import Wording
from gnano.evals.gathering import Sheet, gather
from gnano.evals.likelihood import GPTReader, Question, batches
from gnano.evals.scores import Accuracy, right
from gnano.model import GPT
from gnano.model.devices import widest_dtype
from gnano.tokenizer import Tokenizer
from gnano.train import Exam, Recipe, World, add_up, evaluating

Part = tuple[list[int], bool]  # numbers of the questions of a batch; do they count?


def open_exam(recipe: Recipe, tokenizer: Tokenizer, world: World) -> Exam:
    """Of the recipe's `train.tasks`; the first rank reads the items, or fetches them."""
    settings = recipe.train
    files = [name for name in settings.tasks if "=" in name or "/" in name or "." in name]
    names = [name for name in settings.tasks if name not in files]
    sheets = world.by_first(partial(gather, names, files, settings.tasks_limit))
    wording = Wording.ours(tokenizer, recipe.model.block_size)
    asked = [(sheet, wording.questions(sheet.items)) for sheet in sheets]
    return partial(_examine, asked, 4 * settings.micro_batch)


def _examine(
    asked: list[tuple[Sheet, list[Question]]],
    rows: int,
    model: GPT,
    world: World,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    found = {}
    with evaluating(model):
        for sheet, questions in asked:
            reader = GPTReader(model)
            parts = list(batches(questions, rows))
            work = partial(_right, reader, sheet, questions)
            empty: Part = (parts[-1], False)
            sums = add_up(work, ((p, True) for p in parts), len(parts), empty, world, stop)
            found[sheet.task] = _figures(sheet, *sums)
    return found


def _right(reader: GPTReader, sheet: Sheet, questions: list[Question], part: Part) -> Tensor:
    """How many items of a batch are right, and by character: [2]."""
    numbers, counts = part
    pairs = iter(reader([questions[number] for number in numbers]).tolist())
    total = torch.zeros(2, dtype=widest_dtype(reader.device), device=reader.device)
    for number in numbers:
        options = islice(pairs, len(questions[number].options))
        known = [(-nats, missed == 0) for nats, missed in options]
        total += torch.tensor(right(sheet.items[number], known), device=total.device)
    return total if counts else torch.zeros_like(total)


def _figures(sheet: Sheet, plain: float, by_character: float) -> dict[str, Any]:
    count = len(sheet.items)
    acc, norm = (Accuracy.share(number, count) for number in (plain, by_character))
    figures = {"items": count, "acc": round(acc.value, 5)}
    best = acc
    if sheet.normalised:
        figures["acc_norm"], best = round(norm.value, 5), norm
    return {**figures, "error": round(best.error, 5)}
