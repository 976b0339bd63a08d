"""Finetuning of a base model, and its comparison with the base on held-out questions.

gnano sft   on answers to questions      gnano dpo   on preferred and rejected answers
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gnano.evals.answers import BeforeAfter, compare_answers
from gnano.evals.exam import open_exam
from gnano.live import LiveLine
from gnano.report.metrics import read_metrics
from gnano.report.page import write_report
from gnano.train.base import base_of
from gnano.train.loop import RunResult, train
from gnano.train.recipe import Recipe
from gnano.train.saving.folders import checkpoints
from gnano.train.saving.retention import best_of
from gnano.train.watching.progress import Progress
from gnano.utils.best_effort import best_effort
from gnano.utils.terminal import echo


class Tuned(NamedTuple):
    result: RunResult
    answers: BeforeAfter | None  # where the run is complete, on its first rank


def tune(
    recipe: Recipe, run: Path, allow: Sequence[str] = (), answers: int = 24, tokens: int = 128
) -> Tuned:
    """Start or resume the recipe in the folder `run`; once done, compare with the base.

    `answers` is the number of held-out questions that both models answer, with `tokens` at most.
    """
    kind = recipe.instructions.kind  # refuses a recipe of texts before anything starts
    progress = Progress()
    try:
        result = train(recipe, run, progress, progress.say, allow, open_exam)
    finally:
        progress.line.close()
    if not result.first:
        return Tuned(result, None)
    echo(f"{result.step:,} of {result.steps:,} steps done; {result.checkpoint}")
    if best := best_of(checkpoints(run)):
        same = "the newest" if best == result.checkpoint else str(best)
        echo(f"The checkpoint with the lowest held-out loss: {same}")
    if result.finished and kind == "instructions":
        with best_effort("comparison with the base"):
            return Tuned(result, _compare(recipe, result, answers, tokens))
    return Tuned(result, None)


def _compare(recipe: Recipe, result: RunResult, count: int, tokens: int) -> BeforeAfter:
    base = base_of(recipe.train.base, result.run)
    assert base is not None
    metrics = read_metrics(result.run / "metrics.jsonl")
    line = LiveLine()
    models = base.folder, result.checkpoint, result.run
    try:
        found = compare_answers(recipe.instructions, *models, metrics, count, tokens, line.show)
    finally:
        line.close()
    if found.losses or found.questions:
        echo(f"\n{found.table()}\n")
        echo(f"Answers side by side: {result.run / 'answers.md'}")
    else:
        share = recipe.instructions.heldout
        echo(f"No question was held out (data.heldout is {share:.0%}): nothing to compare.")
    with best_effort("page of the run"):
        echo(f"The run as a page: {write_report(result.run, samples=found.samples())}")
    return found
