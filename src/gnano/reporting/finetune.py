"""Finetuning of a base model, and its comparison with the base on held-out questions.

gnano sft   on answers to questions      gnano dpo   on preferred and rejected answers
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gnano.checkpoint.format import list_checkpoints
from gnano.checkpoint.manager import best_checkpoint
from gnano.config.recipe import Recipe
from gnano.evals.sft_compare import AnswerComparison, compare_answers
from gnano.evals.train_eval import build_task_evaluator
from gnano.reporting.html_report import write_html_report
from gnano.train.base_checkpoint import find_base
from gnano.train.logging.progress_bar import ProgressBar
from gnano.train.trainer import RunResult, train
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.progress import StatusLine
from gnano.utils.terminal import best_effort, echo


class FinetuneResult(NamedTuple):
    result: RunResult
    comparison: AnswerComparison | None  # where the run is complete, on its first rank


def finetune(
    recipe: Recipe,
    run_dir: Path,
    allow: Sequence[str] = (),
    answers: int = 24,
    max_tokens: int = 128,
) -> FinetuneResult:
    """Start or resume the recipe in the folder `run`; once done, compare with the base.

    `answers` is the number of held-out questions that both models answer, with `tokens` at most.
    """
    kind = recipe.tuning_data.kind  # refuses a recipe of texts before anything starts
    progress = ProgressBar()
    try:
        result = train(
            recipe, run_dir, progress.update, progress.show_message, allow, build_task_evaluator
        )
    finally:
        progress.line.close()
    if not result.is_main:
        return FinetuneResult(result, None)
    echo(f"{result.step:,} of {result.total_steps:,} steps done; {result.checkpoint}")
    if best := best_checkpoint(list_checkpoints(run_dir)):
        same = "the newest" if best == result.checkpoint else str(best)
        echo(f"The checkpoint with the lowest held-out loss: {same}")
    if result.is_finished and kind == "instructions":
        with best_effort("comparison with the base"):
            return FinetuneResult(result, _compare_with_base(recipe, result, answers, max_tokens))
    return FinetuneResult(result, None)


def _compare_with_base(
    recipe: Recipe, result: RunResult, num_questions: int, max_tokens: int
) -> AnswerComparison:
    base = find_base(recipe.train.init_from, result.run)
    assert base is not None
    metrics = read_metrics(result.run / "metrics.jsonl")
    line = StatusLine()
    models = base.folder, result.checkpoint, result.run
    try:
        found = compare_answers(
            recipe.tuning_data, *models, metrics, num_questions, max_tokens, line.update
        )
    finally:
        line.close()
    if found.losses or found.questions:
        echo(f"\n{found.format_table()}\n")
        echo(f"Answers side by side: {result.run / 'answers.md'}")
    else:
        share = recipe.tuning_data.heldout_fraction
        echo(
            f"No question was held out (data.heldout_fraction is {share:.0%}): nothing to compare."
        )
    with best_effort("page of the run"):
        echo(f"The run as a page: {write_html_report(result.run, samples=found.report_samples())}")
    return found
